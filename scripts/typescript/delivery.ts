/** What an answer means for an event, by the contract's `x-delivery` (pure). */

import type { Event } from "./events.js";
import type { Delivery, Webhook } from "./operations.js";
import type { Answer, Outcome } from "./transport.js";
import type { Outcome as Became } from "./webhooks.js";

/** What is believed of a problem document (RFC 9457): nothing that may be a value. */
export interface Problem {
    type: string;
    pointers: readonly string[];
    existing: { id: string; event: string } | undefined;
}

/** The CRM's word, or the outbox's, that it has the event. */
export type Promised = "pending_approval" | "queued";

/** What an outcome means. */
export interface Judgement {
    meaning: Delivery;
    /** In the integration guide's words. */
    words: string;
    status?: number;
    problem?: Problem;
    /** What to do, where key, address or release is wrong. */
    cure?: string;
    /** The receipt, where it is delivered. */
    receipt?: { id: string; status: Promised; duplicate: boolean; natural_key: string; digest: string };
}

/** What a receiver says of a receipt. */
export type Told =
    /** What became of the event until now. */
    | { told: "outcome"; outcome: Became }
    /** It has given no receipt with that id. */
    | { told: "unknown" }
    /** It speaks an older release, which cannot tell. */
    | { told: "too-old" }
    /** It cannot tell now: ask again later, after `retryAfter` seconds where it says so. */
    | { told: "away"; answer: string; retryAfter: number | undefined }
    /** Key or address is wrong. */
    | { told: "misconfigured"; answer: string; cure: string };

const PHRASES: Record<number, string> = {
    200: "OK",
    202: "Accepted",
    301: "Moved Permanently",
    302: "Found",
    303: "See Other",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
};

const CURES: Record<number, string> = {
    401: "check CRM_API_KEY and the CRM's WEBHOOK_API_KEY; where webhooks are signed, the secrets too",
    403: "check the CRM's WEBHOOK_ALLOWED_NETWORKS",
    404: "check CRM_WEBHOOK_URL",
    405: "check CRM_WEBHOOK_URL",
};
export const BETWEEN = "check CRM_WEBHOOK_URL and what stands before the CRM";
const RELEASE_CURE =
    "update the CRM, which does not speak this contract release, or where that speaks newer ones only have it accepted " +
    "again: crm-server unretire";

/** What a pointer to a field or a header looks like; anything else may be a value. */
const POINTER = /^(?:(?:\/[A-Za-z0-9_-]{1,64}){1,8}|#webhook-[a-z]{1,16})$/;

/** Say what an outcome means for an event. */
export function judge(outcome: Outcome, webhook: Webhook, event: Event): Judgement {
    if ("fault" in outcome) return { meaning: "retry", words: outcome.fault };
    const { status } = outcome;
    const words = statusWords(status);
    if (status === 202) {
        const receipt = receiptOf(outcome, event);
        if (receipt) return { meaning: "delivered", words, status, receipt };
        return { meaning: "retry", words: `${words}, but not this event's receipt`, status };
    }
    const problem = problemOf(outcome);
    const documented = webhook.answers[status];
    if ((status >= 200 && status < 300) || status >= 500 || [408, 425, 429].includes(status)) {
        return { meaning: "retry", words, status, problem };
    }
    const meaning = problem && documented ? (documented.byType[problem.type] ?? documented.default) : "hold";
    const cure = problem?.type === "unsupported-contract-version" ? RELEASE_CURE : CURES[status];
    return { meaning, words, status, problem, cure };
}

/** Say what an answer tells of a receipt. */
export function tellOf(outcome: Outcome, id: string): Told {
    if ("fault" in outcome) return { told: "away", answer: outcome.fault, retryAfter: undefined };
    const { status, retryAfter } = outcome;
    const answer = statusWords(status);
    if (status === 200) {
        const found = jsonOf(outcome);
        const isOurs = found?.id === id && typeof found.status === "string" && typeof found.event === "string";
        if (isOurs) return { told: "outcome", outcome: found as unknown as Became };
        return { told: "misconfigured", answer: `${answer}, but not this receipt's`, cure: BETWEEN };
    }
    if (status >= 500 || status === 408 || status === 425 || status === 429) return { told: "away", answer, retryAfter };
    const problem = problemOf(outcome);
    if (problem?.type === "unknown-receipt") return { told: "unknown" };
    if (problem && (status === 404 || status === 405)) return { told: "too-old" };
    return { told: "misconfigured", answer, cure: CURES[status] ?? BETWEEN };
}

/** Return a status as the guide writes it: `401 Unauthorized`. */
export function statusWords(status: number): string {
    return PHRASES[status] ? `${status} ${PHRASES[status]}` : `${status}`;
}

/** Return an answer's receipt, where it is one for this very event. */
function receiptOf(answer: Answer, event: Event): Judgement["receipt"] {
    const receipt = jsonOf(answer);
    if (receipt?.status !== "pending_approval" && receipt?.status !== "queued") return undefined;
    const isOurs = receipt.natural_key === event.naturalKey && receipt.digest === event.digest;
    return isOurs ? (receipt as unknown as Judgement["receipt"]) : undefined;
}

/** Return an answer's problem, where it is one of ours; "about:blank" is a proxy's, for ours name their type. */
export function problemOf(answer: Answer): Problem | undefined {
    const [mediaType = ""] = answer.contentType.split(";");
    const found = mediaType.trim().toLowerCase() === "application/problem+json" ? jsonOf(answer) : undefined;
    const type = found?.type;
    if (found?.status !== answer.status || typeof type !== "string" || type === "about:blank") return undefined;
    const faults: { pointer?: unknown }[] = Array.isArray(found.errors) ? found.errors : [];
    const pointers = faults.map((fault) => fault?.pointer).filter(isPointer);
    const existing = found.existing as { id?: unknown; event?: unknown } | undefined;
    return {
        type: short(type),
        pointers: pointers.slice(0, 100),
        existing: existing ? { id: short(existing.id), event: short(existing.event) } : undefined,
    };
}

function isPointer(value: unknown): value is string {
    return typeof value === "string" && POINTER.test(value);
}

function short(value: unknown): string {
    return String(value ?? "").slice(0, 64);
}

/** Return an answer's JSON object, where it is one. */
export function jsonOf(answer: Answer): Record<string, unknown> | undefined {
    try {
        const value = JSON.parse(answer.body);
        return typeof value === "object" && !Array.isArray(value) ? (value ?? undefined) : undefined;
    } catch {
        return undefined;
    }
}
