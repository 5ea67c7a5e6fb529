/** The client: an event is sent until the CRM, or the website's outbox, has it. */

import { jsonOf, judge, statusWords, tellOf, type Promised, type Told } from "./delivery.js";
import { CRMUnavailable, EventRefused, LinkMisconfigured, SettingsError } from "./errors.js";
import { eventOf, secretKey, signature, uuid7, type Event } from "./events.js";
import { CURRENT, HEALTH_PATH, RECEIPT_PATH, WEBHOOKS, type Bodies, type WebhookName } from "./operations.js";
import { authorization, between, exchange, wait, type Outcome, type Request } from "./transport.js";
import type { Receipt } from "./webhooks.js";

export type CustomerRegistration = Bodies["customer-registration"];
export type RepairRequest = Bodies["repair-request"];
export type PaymentStatus = Bodies["payment-status"];
export type BookingStatus = Bodies["booking-status"];
export type CustomerProfile = Bodies["customer-profile"];

/** What the client must know. What is not given is read from the environment, and else by default. */
export interface CRMOptions {
    /**
     * Where the webhooks are (`CRM_WEBHOOK_URL`, `http://localhost:5001/webhooks`): the CRM's, or the
     * website's own outbox, `http://localhost:3010/webhooks`.
     */
    url?: string | undefined;
    /** The key (`CRM_API_KEY`). It belongs on a server, never in a browser. */
    apiKey?: string | undefined;
    /** Seconds before each retry (`CRM_RETRY_SCHEDULE`, 1, 2, 3); as many retries as entries. */
    retrySchedule?: readonly number[] | undefined;
    /** Seconds of one attempt, from connect to the last byte (`CRM_TIMEOUT`, 5). */
    timeout?: number | undefined;
    /** What webhooks are signed by (`CRM_SIGNING_SECRET`): base64, with `whsec_` before it or without. */
    signingSecret?: string | undefined;
    /** The longest `Retry-After`, in seconds, that is waited for (10): longer ones throw CRMUnavailable at once. */
    longestWait?: number | undefined;
}

/** How one event is sent. */
export interface SendOptions {
    /** The event's id: a new one by default. Give the one of an error to send its event again. */
    webhookId?: string | undefined;
    /** Ends attempts and waiting when it is aborted. */
    signal?: AbortSignal | undefined;
}

/**
 * The receipt of an event. `status` says who promises what: `pending_approval`, the CRM has it, durably;
 * `queued`, the website's outbox has it, durably, and its relay delivers it once the CRM can take it.
 */
export type Taken = Receipt & { status: Promised; webhookId: string };

/** How the receiver is. */
export interface Health {
    /** Whether it would take an event now. */
    ok: boolean;
    /** Its answer in the integration guide's words. */
    answer: string;
    /** The contract releases that it speaks, where it says so. */
    versions: readonly string[] | undefined;
    /** Whether it speaks the release that this client was made for. */
    speaksOurs: boolean;
}

/** The part of a delay by which it may grow, so that clients do not beat in time. */
const JITTER = 0.1;
const ID = /^[A-Za-z0-9._-]{1,128}$/;
const HEALTH_TIMEOUT = 2;

/** Sends events, each until it is taken. Throws SettingsError for wrong options. */
export class CRM {
    // Private to the language, so that no log that prints an object shows the key.
    readonly #url: string;
    readonly #headers: Record<string, string>;
    readonly #schedule: readonly number[];
    readonly #timeout: number;
    readonly #secret: Uint8Array<ArrayBuffer> | undefined;
    readonly #longestWait: number;

    constructor(options: CRMOptions = {}) {
        this.#url = readUrl(options.url ?? variable("CRM_WEBHOOK_URL") ?? "http://localhost:5001/webhooks");
        this.#headers = authorization(options.apiKey ?? variable("CRM_API_KEY"), "CRM_API_KEY");
        const schedule = variable("CRM_RETRY_SCHEDULE")?.split(",").map(seconds);
        this.#schedule = (options.retrySchedule ?? schedule ?? [1, 2, 3]).map((delay) =>
            between("CRM_RETRY_SCHEDULE", delay, 0, 86_400),
        );
        this.#timeout = between("CRM_TIMEOUT", options.timeout ?? Number(variable("CRM_TIMEOUT") ?? 5), 0.001, 300);
        this.#secret = readSecret(options.signingSecret ?? variable("CRM_SIGNING_SECRET"));
        this.#longestWait = between("longestWait", options.longestWait ?? 10, 0, 3600);
    }

    /** Tell that a customer registered. See `send`. */
    customerRegistered(event: CustomerRegistration, options?: SendOptions): Promise<Taken> {
        return this.send("customer-registration", event, options);
    }

    /** Tell that a customer booked a repair. See `send`. */
    repairRequested(event: RepairRequest, options?: SendOptions): Promise<Taken> {
        return this.send("repair-request", event, options);
    }

    /** Tell that a payment for a repair has moved on. See `send`. */
    paymentChanged(event: PaymentStatus, options?: SendOptions): Promise<Taken> {
        return this.send("payment-status", event, options);
    }

    /** Tell that a booking has moved on. See `send`. */
    bookingChanged(event: BookingStatus, options?: SendOptions): Promise<Taken> {
        return this.send("booking-status", event, options);
    }

    /** Tell that a customer changed their profile. See `send`. */
    profileChanged(event: CustomerProfile, options?: SendOptions): Promise<Taken> {
        return this.send("customer-profile", event, options);
    }

    /**
     * Send an event by its webhook's name, and again on the schedule until it is taken.
     *
     * The same event may be sent any number of times: it is queued once. Throws EventRefused,
     * LinkMisconfigured, CRMUnavailable, SettingsError for an id that cannot be one, and what `signal` is aborted with.
     */
    async send<Name extends WebhookName>(
        name: Name,
        event: Bodies[Name],
        { webhookId = uuid7(), signal }: SendOptions = {},
    ): Promise<Taken> {
        if (!ID.test(webhookId)) throw new SettingsError("webhookId: letters, digits, '.', '_' and '-', 128 at most");
        const webhook = WEBHOOKS[name];
        const written = await eventOf(webhook, event, webhookId);
        for (let attempts = 1; ; attempts++) {
            const outcome = await this.#attempt(webhook.path, written, signal);
            const judgement = judge(outcome, webhook, written);
            if (judgement.receipt) return { ...judgement.receipt, webhookId };
            const sending = { event: name, webhookId, attempts };
            if (judgement.meaning === "fail") throw new EventRefused(sending, judgement);
            if (judgement.meaning === "hold") throw new LinkMisconfigured(sending, judgement);
            const asked = askedToWait(outcome);
            const delay = this.#schedule[attempts - 1];
            if (delay === undefined || (asked ?? 0) > this.#longestWait) {
                throw new CRMUnavailable(sending, judgement, asked);
            }
            await wait(Math.max(delay * (1 + JITTER * Math.random()), asked ?? 0), signal);
        }
    }

    /**
     * Ask once what became of an event, by the `id` of its receipt, where that was given. Never throws for the answer.
     *
     * Throws SettingsError for an id that cannot be one, and what `signal` is aborted with.
     */
    async receipt(id: string, signal?: AbortSignal): Promise<Told> {
        if (!ID.test(id)) throw new SettingsError("id: letters, digits, '.', '_' and '-', 128 at most");
        if (/^\.+$/.test(id)) return { told: "unknown" }; // a URL with it would name another path
        const headers = { ...this.#headers, accept: "application/json, application/problem+json" };
        const url = `${this.#url}${RECEIPT_PATH.replace("{id}", id)}`;
        return tellOf(await exchange(url, { method: "GET", headers }, this.#timeout, signal), id);
    }

    /** Ask how the receiver is; never throws for the answer. */
    async health(signal?: AbortSignal): Promise<Health> {
        const request: Request = { method: "GET", headers: { accept: "application/json" } };
        const outcome = await exchange(`${this.#url}${HEALTH_PATH}`, request, HEALTH_TIMEOUT, signal);
        if ("fault" in outcome) return { ok: false, answer: outcome.fault, versions: undefined, speaksOurs: false };
        const body = jsonOf(outcome);
        const spoken = (body?.contract as { versions?: unknown } | undefined)?.versions;
        const versions = Array.isArray(spoken) ? spoken.map(String) : undefined;
        const isHealth = outcome.status !== 200 || typeof body?.status === "string";
        return {
            ok: outcome.status === 200 && isHealth,
            answer: `${statusWords(outcome.status)}${isHealth ? "" : ", but not the CRM's health"}`,
            versions,
            speaksOurs: versions?.includes(CURRENT) ?? false,
        };
    }

    async #attempt(path: string, event: Event, signal?: AbortSignal): Promise<Outcome> {
        const headers = {
            ...this.#headers,
            accept: "application/json, application/problem+json",
            "content-type": "application/json",
            "webhook-id": event.id,
            "webhook-contract": CURRENT,
            ...(this.#secret && (await signature(this.#secret, event))),
        };
        const request: Request = { method: "POST", headers, body: event.body };
        return exchange(`${this.#url}${path}`, request, this.#timeout, signal);
    }
}

/** Return the seconds that an answer asks to wait: 429 and 503 may. */
function askedToWait(outcome: Outcome): number | undefined {
    return "status" in outcome && (outcome.status === 429 || outcome.status === 503) ? outcome.retryAfter : undefined;
}

/** Return a variable of the environment, where there is one; an empty one is not set. */
function variable(name: string): string | undefined {
    const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
    return process?.env?.[name] || undefined;
}

/** Read a number of seconds; empty text is none, and not the 0 that JavaScript takes it for. */
function seconds(text: string): number {
    return text.trim() ? Number(text) : NaN;
}

function readUrl(text: string): string {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash) {
        throw new SettingsError(
            "CRM_WEBHOOK_URL: is not a URL such as http://localhost:5001/webhooks; the key goes into CRM_API_KEY",
        );
    }
    return text.replace(/\/+$/, "");
}

function readSecret(secret: string | undefined): Uint8Array<ArrayBuffer> | undefined {
    try {
        return secret === undefined ? undefined : secretKey(secret);
    } catch {
        throw new SettingsError("CRM_SIGNING_SECRET: must be base64, with whsec_ before it or without");
    }
}
