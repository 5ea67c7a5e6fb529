// Prints what the package's inside makes of events and answers: digests, and the meaning of each answer.
import { readFileSync } from "node:fs";
import { judge, tellOf } from "./node_modules/revivatech-crm-link/delivery.js";
import { canonicalContent, eventOf } from "./node_modules/revivatech-crm-link/events.js";
import { WEBHOOKS } from "./node_modules/revivatech-crm-link/operations.js";
import { retryAfter } from "./node_modules/revivatech-crm-link/transport.js";

const { events = [], answers = [], waits = [], receipts = [] } = JSON.parse(readFileSync(0, "utf8"));
const written = await Promise.all(
    events.map(async ({ webhook, text }) => {
        const { naturalKey, digest } = await eventOf(WEBHOOKS[webhook], JSON.parse(text), "id");
        return { naturalKey, digest, canonical: canonicalContent(JSON.parse(text), WEBHOOKS[webhook]) };
    }),
);
const event = { id: "id", body: "", naturalKey: "key", digest: "digest" };
const meanings = answers.map(({ webhook, answer }) => judge(answer, WEBHOOKS[webhook], event).meaning);
const asked = waits.map(({ value, now }) => retryAfter(value, now * 1000) ?? null);
const told = receipts.map((answer) => tellOf(answer, "id"));
process.stdout.write(JSON.stringify({ written, meanings, asked, told }));
