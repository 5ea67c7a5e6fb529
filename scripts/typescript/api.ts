/** The website's integration API, port 3010: how the link is, a test of it, failed deliveries sent again. */

import { jsonOf, problemOf, statusWords } from "./delivery.js";
import type { components } from "./integration.js";
import { authorization, between, exchange, type Request } from "./transport.js";

type Schemas = components["schemas"];
export type IntegrationStatus = Schemas["Status"];
export type RetryingFailed = Schemas["RetryingFailed"];
export type Retried = Schemas["Retried"];
export type TestResult = Schemas["TestResult"];

export interface IntegrationOptions {
    /** Where the API is: `/api/crm` of the page's own site by default. A server has none: `http://localhost:3010/api/crm`. */
    url?: string | undefined;
    /** CRM_ADMIN_TOKEN, which test and retry need. It belongs on a server, never in a browser. */
    token?: string | undefined;
    /** Seconds that an answer may take (30: a test asks the CRM several things). */
    timeout?: number | undefined;
}

/** The API gave another answer than the one that was asked for. */
export class IntegrationError extends Error {
    override readonly name: string = "IntegrationError";
    /** The HTTP status, where there was an answer. */
    readonly status: number | undefined;
    /** The problem's type (RFC 9457), where the answer is a problem. */
    readonly type: string | undefined;

    constructor(answer: string, status?: number, type?: string) {
        super(`The integration API: ${answer}${type ? ` (${type})` : ""}`);
        this.status = status;
        this.type = type;
    }
}

/**
 * Asks the integration API. Throws SettingsError for wrong options.
 *
 * Every method throws IntegrationError, and what `signal` is aborted with.
 */
export class IntegrationAPI {
    readonly #url: string;
    readonly #headers: Record<string, string>;
    readonly #timeout: number;

    constructor({ url = "/api/crm", token, timeout = 30 }: IntegrationOptions = {}) {
        this.#url = `${url.replace(/\/+$/, "")}/integration`;
        this.#headers = authorization(token, "CRM_ADMIN_TOKEN");
        this.#timeout = between("timeout", timeout, 0.001, 300);
    }

    /** Ask how the link is: counts, no personal data; five seconds old at most. Needs no token. */
    status(signal?: AbortSignal): Promise<IntegrationStatus> {
        return this.#ask("", { method: "GET", headers: {} }, signal);
    }

    /** Test the way to the CRM; the CRM stores nothing. */
    test(signal?: AbortSignal): Promise<TestResult> {
        return this.#ask("/test", this.#json("POST", {}), signal);
    }

    /** Send failed deliveries again, those that match everything that is asked for; all of them by default. */
    retryFailed(which: RetryingFailed = {}, signal?: AbortSignal): Promise<Retried> {
        return this.#ask("/retry-failed", this.#json("PATCH", which), signal);
    }

    #json(method: "POST" | "PATCH", body: object): Request {
        return {
            method,
            headers: { ...this.#headers, "content-type": "application/json" },
            body: JSON.stringify(body),
        };
    }

    async #ask<Found>(path: string, request: Request, signal?: AbortSignal): Promise<Found> {
        const outcome = await exchange(`${this.#url}${path}`, request, this.#timeout, signal);
        if ("fault" in outcome) throw new IntegrationError(outcome.fault);
        const body = jsonOf(outcome);
        if (outcome.status === 200 && body) return body as Found;
        throw new IntegrationError(statusWords(outcome.status), outcome.status, problemOf(outcome)?.type);
    }
}
