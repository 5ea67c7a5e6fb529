/** An event: its text, its identity, its signature. */

import type { Path, Webhook } from "./operations.js";

/** An event as it is sent: written down once, the same on every attempt. */
export interface Event {
    id: string;
    /** The body, byte for byte. */
    body: string;
    naturalKey: unknown;
    /** SHA-256 of the canonical content, in hexadecimal: the receipt of this very event repeats it. */
    digest: string;
}

/** Write a body down. */
export async function eventOf(webhook: Webhook, source: object, id: string): Promise<Event> {
    const body = JSON.stringify(source);
    return {
        id,
        body,
        naturalKey: parentOf(JSON.parse(body), webhook.naturalKey)?.[webhook.naturalKey.at(-1) ?? ""],
        digest: await digest(canonicalContent(JSON.parse(body), webhook)),
    };
}

/**
 * Return what two sendings of one event agree in, as canonical JSON (RFC 8785); changes `body` to it.
 *
 * Without the contract's `x-identity: false` fields, and with every date-time in UTC.
 */
export function canonicalContent(body: unknown, webhook: Webhook): string {
    for (const path of webhook.notIdentity) {
        delete parentOf(body, path)?.[path.at(-1) ?? ""];
    }
    for (const path of webhook.times) {
        const parent = parentOf(body, path);
        const time = parent?.[path.at(-1) ?? ""];
        if (parent && typeof time === "string") parent[path.at(-1) ?? ""] = inUtc(time);
    }
    return canonical(body);
}

function parentOf(body: unknown, path: Path): Record<string, unknown> | undefined {
    for (const name of path.slice(0, -1)) {
        body = (body as Record<string, unknown> | null)?.[name];
    }
    return typeof body === "object" && body !== null ? (body as Record<string, unknown>) : undefined;
}

/** Return an RFC 3339 time in UTC, with `Z` and no trailing zeros; as it is where UTC has no such year. */
function inUtc(text: string): string {
    const [, moment, fraction = "", offset] = /^(.{19})(\.[0-9]+)?(Z|[+-].{5})$/.exec(text) ?? [];
    const utc = new Date(`${moment}${offset}`);
    const year = utc.getUTCFullYear();
    if (!(year >= 1 && year <= 9999)) return text;
    return `${utc.toISOString().slice(0, 19)}${fraction.replace(/\.?0+$/, "")}Z`;
}

/** Return JSON as RFC 8785 writes it: ECMAScript's own numbers and strings, members by their UTF-16 code units. */
function canonical(value: unknown): string {
    if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
    if (typeof value !== "object" || value === null) return JSON.stringify(value);
    const members = Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1));
    return `{${members.map(([name, part]) => `${JSON.stringify(name)}:${canonical(part)}`).join(",")}}`;
}

async function digest(content: string): Promise<string> {
    const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(content));
    return hex(new Uint8Array(bytes));
}

/** Return a new UUID that sorts by time (RFC 9562, section 5.7). */
export function uuid7(): string {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    const time = Date.now();
    for (let at = 0; at < 6; at++) bytes[at] = Math.floor(time / 2 ** (40 - 8 * at)) % 256;
    bytes[6] = 0x70 | ((bytes[6] ?? 0) & 0x0f);
    bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
    return hex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function hex(bytes: Uint8Array): string {
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return a key of base64 text, with `whsec_` before it or without. Throws for what is none. */
export function secretKey(secret: string): Uint8Array<ArrayBuffer> {
    const bytes = Uint8Array.from(atob(secret.replace(/^whsec_/, "")), (char) => char.charCodeAt(0));
    if (!bytes.length) throw new RangeError("empty");
    return bytes;
}

/** Return the headers that vouch for an event, of this moment: an old signature is refused (Standard Webhooks). */
export async function signature(
    secret: Uint8Array<ArrayBuffer>,
    event: Event,
): Promise<Record<string, string>> {
    const time = Math.floor(Date.now() / 1000);
    const key = await crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    const content = new TextEncoder().encode(`${event.id}.${time}.${event.body}`);
    const bytes = new Uint8Array(await crypto.subtle.sign("HMAC", key, content));
    const signed = btoa(String.fromCharCode(...bytes));
    return { "webhook-timestamp": `${time}`, "webhook-signature": `v1,${signed}` };
}
