/**
 * The errors of the client. None holds a value of a payload, the key, or what another error said.
 *
 * Error
 * ├── SettingsError           an option or a CRM_* variable is wrong
 * └── CRMError                the event was not taken
 *     ├── EventRefused          this event is refused: sending it again changes nothing
 *     ├── LinkMisconfigured     key, address or contract release is wrong, not the event
 *     └── CRMUnavailable        every attempt failed: send it again later, under the same webhook-id
 */

import { BETWEEN, type Judgement } from "./delivery.js";

/** An option or a `CRM_*` variable is wrong. */
export class SettingsError extends Error {
    override readonly name: string = "SettingsError";
}

/** What an event's sending came to. */
export interface Sending {
    /** The webhook: `customer-registration`, `repair-request`, `payment-status` … */
    event: string;
    /** The id of every attempt; an event that is sent again keeps it. */
    webhookId: string;
    /** How many attempts were made. */
    attempts: number;
}

/** The event was not taken. */
export abstract class CRMError extends Error {
    readonly event: string;
    readonly webhookId: string;
    readonly attempts: number;
    /** The last answer in the integration guide's words: `401 Unauthorized`, `timeout`, `Connection refused`. */
    readonly answer: string;
    /** The last answer's HTTP status, where there was an answer. */
    readonly status: number | undefined;
    /** The problem's type (RFC 9457), where the answer is a problem: `invalid-event`, `conflict`. */
    readonly type: string | undefined;

    constructor(what: string, sending: Sending, judgement: Judgement) {
        super(`${sending.event} ${sending.webhookId}: ${judgement.words}: ${what}`);
        this.event = sending.event;
        this.webhookId = sending.webhookId;
        this.attempts = sending.attempts;
        this.answer = judgement.words;
        this.status = judgement.status;
        this.type = judgement.problem?.type;
    }
}

/** The CRM judged this event and refuses it: mend the payload. */
export class EventRefused extends CRMError {
    override readonly name: string = "EventRefused";
    /** JSON pointers (RFC 6901) to what is at fault, without the values. */
    readonly pointers: readonly string[];
    /** What stands there under the same identity, after a conflict. */
    readonly existing: { id: string; event: string } | undefined;

    constructor(sending: Sending, judgement: Judgement) {
        const pointers = judgement.problem?.pointers ?? [];
        const where = pointers.length ? ` at ${pointers.join(", ")}` : "";
        super(`refused (${judgement.problem?.type ?? "unknown"})${where}`, sending, judgement);
        this.pointers = pointers;
        this.existing = judgement.problem?.existing;
    }
}

/** Key, address or contract release is wrong, not the event: mend that, then send it again. */
export class LinkMisconfigured extends CRMError {
    override readonly name: string = "LinkMisconfigured";

    constructor(sending: Sending, judgement: Judgement) {
        super(judgement.cure ?? BETWEEN, sending, judgement);
    }
}

/** Every attempt failed: send the event again later, under the same `webhookId`. */
export class CRMUnavailable extends CRMError {
    override readonly name: string = "CRMUnavailable";
    /** Seconds that the last answer asked to wait, where it did. */
    readonly retryAfter: number | undefined;

    constructor(sending: Sending, judgement: Judgement, retryAfter: number | undefined) {
        const times = sending.attempts === 1 ? "1 attempt" : `${sending.attempts} attempts`;
        super(`not taken after ${times}; send it again later`, sending, judgement);
        this.retryAfter = retryAfter;
    }
}
