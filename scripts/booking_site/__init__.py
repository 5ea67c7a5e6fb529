"""The demo's booking site: a small real website whose bookings reach the CRM through the sender."""
