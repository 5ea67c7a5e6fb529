"""The CRM's side of the link: receives webhooks, queues them for approval, records what staff decide."""
