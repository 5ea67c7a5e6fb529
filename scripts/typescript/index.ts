/** Everything that a site uses. */

export { IntegrationAPI, IntegrationError } from "./api.js";
export type { IntegrationOptions, IntegrationStatus, RetryingFailed, Retried, TestResult } from "./api.js";
export { CRM } from "./crm.js";
export type { CRMOptions, CustomerRegistration, Health, RepairRequest, SendOptions, Taken } from "./crm.js";
export { CRMError, CRMUnavailable, EventRefused, LinkMisconfigured, SettingsError } from "./errors.js";
export { CURRENT } from "./operations.js";
export type { Bodies, WebhookName } from "./operations.js";
