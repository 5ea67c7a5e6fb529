/** Everything that a site uses. */

export { IntegrationAPI, IntegrationError } from "./api.js";
export type { IntegrationOptions, IntegrationStatus, RetryingFailed, Retried, TestResult } from "./api.js";
export { CRM } from "./crm.js";
export type {
    BookingStatus,
    CRMOptions,
    CustomerProfile,
    CustomerRegistration,
    Health,
    PaymentStatus,
    RepairRequest,
    SendOptions,
    Taken,
} from "./crm.js";
export type { Told } from "./delivery.js";
export { CRMError, CRMUnavailable, EventRefused, LinkMisconfigured, SettingsError } from "./errors.js";
export { CURRENT } from "./operations.js";
export type { Bodies, WebhookName } from "./operations.js";
export type { Outcome } from "./webhooks.js";
