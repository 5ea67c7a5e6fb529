// Calls the package as a site would, and prints what came of it; waiting is noted and takes no time.
import { readFileSync } from "node:fs";
import { inspect } from "node:util";

const { face, options, calls } = JSON.parse(readFileSync(0, "utf8"));
const waits = [];
const { setTimeout: after } = globalThis;
globalThis.setTimeout = (then, milliseconds, ...more) => {
    const [, , caller] = new Error().stack.split("\n");
    if (!caller.includes("revivatech-crm-link")) return after(then, milliseconds, ...more); // `fetch` itself
    waits.push(milliseconds / 1000);
    return after(then, 0);
};

const shown = [];
console.log = console.warn = console.error = (...words) => shown.push(words.join(" "));
const crmLink = await import("revivatech-crm-link");
const answers = [];
try {
    const client = new crmLink[face](options);
    shown.push(inspect(client, { depth: 9, showHidden: true }));
    for (const [method, ...given] of calls) {
        try {
            if (given[1]?.signal) given[1].signal = AbortSignal.abort();
            answers.push(await client[method](...given));
        } catch (error) {
            shown.push(inspect(error, { depth: 9, showHidden: true }), error.message);
            const isOurs = error instanceof crmLink.CRMError;
            answers.push({ error: error.name, message: error.message, isOurs, ...error });
        }
    }
} catch (error) {
    answers.push({ error: error.name, message: error.message });
}
process.stdout.write(JSON.stringify({ answers, waits, shown: shown.join("\n") }));
