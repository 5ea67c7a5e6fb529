/** One attempt over HTTP, within one deadline: it returns what came back, and never throws for it. */

import { SettingsError } from "./errors.js";

/** Bytes of an answer that are read. */
const MAX_ANSWER = 65_536;
/** Seconds that a Retry-After may ask for: none at all would make us hammer. */
const SHORTEST_WAIT = 1;
const LONGEST_WAIT = 3600;

/** An HTTP answer, read to a bound. */
export interface Answer {
    status: number;
    contentType: string;
    body: string;
    /** Seconds. */
    retryAfter: number | undefined;
}

/** No answer: why not, in the integration guide's words. */
export interface Fault {
    fault: string;
}

export type Outcome = Answer | Fault;

/** What a request is made of. */
export interface Request {
    method: "GET" | "POST" | "PATCH";
    headers: Record<string, string>;
    body?: string;
}

/**
 * Make one request. `timeout`: seconds from connect to the last byte of the answer.
 *
 * A redirect is an answer like any other: followed, it would take key and payload to another address.
 * Throws what `signal` was aborted with, and nothing else.
 */
export async function exchange(
    url: string,
    request: Request,
    timeout: number,
    signal?: AbortSignal,
): Promise<Outcome> {
    const deadline = AbortSignal.timeout(Math.ceil(timeout * 1000)); // Node takes whole milliseconds alone
    try {
        const response = await fetch(url, {
            ...request,
            redirect: "manual",
            cache: "no-store", // frameworks that replace `fetch` would keep answers
            signal: signal ? AbortSignal.any([deadline, signal]) : deadline,
        });
        return {
            status: response.status,
            contentType: response.headers.get("content-type") ?? "",
            body: await read(response),
            retryAfter: retryAfter(response.headers.get("retry-after"), Date.now()),
        };
    } catch (error) {
        signal?.throwIfAborted();
        return { fault: deadline.aborted ? "timeout" : words(error) };
    }
}

/** Return the header with a key or a token, which `name` is the setting of; none without, which is answered 401. */
export function authorization(key: string | undefined, name: string): Record<string, string> {
    if (key === undefined) return {};
    if (!/^[\x21-\x2b\x2d-\x7e]+$/.test(key)) {
        throw new SettingsError(`${name}: must be printable ASCII without space or comma`);
    }
    return { authorization: `Bearer ${key}` };
}

/** Return a setting in seconds. Throws SettingsError where it is not within bounds. */
export function between(name: string, value: number, least: number, most: number): number {
    if (value >= least && value <= most) return value;
    throw new SettingsError(`${name}: between ${least} and ${most} seconds`);
}

async function read(response: Response): Promise<string> {
    const reader = response.body?.getReader();
    const decoder = new TextDecoder();
    let text = "";
    let size = 0;
    while (reader && size < MAX_ANSWER) {
        const { done, value } = await reader.read();
        if (done) return text + decoder.decode();
        size += value.byteLength;
        text += decoder.decode(value, { stream: true });
    }
    await reader?.cancel();
    return text;
}

/** Return the seconds of a Retry-After header (RFC 9110, section 10.2.3), within bounds. */
export function retryAfter(value: string | null, now: number): number | undefined {
    if (value === null) return undefined;
    const seconds = /^[0-9]+$/.test(value) ? Number(value) : (Date.parse(value) - now) / 1000;
    return Number.isNaN(seconds) ? SHORTEST_WAIT : Math.min(Math.max(seconds, SHORTEST_WAIT), LONGEST_WAIT);
}

/** Say why there was no answer; what the error itself says may name an address. */
function words(error: unknown): string {
    const cause = (error as { cause?: { code?: unknown } }).cause;
    switch (cause?.code) {
        case "ECONNREFUSED":
            return "Connection refused";
        case "ECONNRESET":
        case "EPIPE":
            return "Connection reset";
        case "UND_ERR_SOCKET":
            return "Connection closed before the whole answer";
        case "ENOTFOUND":
        case "EAI_AGAIN":
            return "Cannot connect";
        default:
            return "network error";
    }
}

/** Wait so many seconds. Throws what `signal` is aborted with meanwhile. */
export function wait(seconds: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
        signal?.throwIfAborted();
        const stop = (): void => {
            clearTimeout(timer);
            reject(signal?.reason);
        };
        const timer = setTimeout(() => {
            signal?.removeEventListener("abort", stop);
            resolve();
        }, seconds * 1000);
        signal?.addEventListener("abort", stop, { once: true });
    });
}
