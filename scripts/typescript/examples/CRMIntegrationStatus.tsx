"use client";

import { useEffect, useState } from "react";
import { IntegrationAPI, type IntegrationStatus, type TestResult } from "revivatech-crm-link";

const SECONDS = 5;

interface Props {
    /** Where the API is, where it is not `/api/crm` of this site. */
    url?: string;
    /** Tests the way to the CRM: a server action, for the admin token stays on the server. */
    onTest?: () => Promise<TestResult>;
}

/** Shows how the link to the CRM is, and what to do where it is not well. Needs no token. */
export function CRMIntegrationStatus({ url, onTest }: Props) {
    const [status, setStatus] = useState<IntegrationStatus>();
    const [isAway, setIsAway] = useState(false);
    const [tested, setTested] = useState<TestResult>();

    useEffect(() => {
        const api = new IntegrationAPI({ url });
        const gone = new AbortController();
        const look = (): Promise<void> =>
            api.status(gone.signal).then(
                (found) => {
                    setStatus(found);
                    setIsAway(false);
                },
                () => setIsAway(!gone.signal.aborted),
            );
        void look();
        const timer = setInterval(() => void look(), SECONDS * 1000);
        return () => {
            clearInterval(timer);
            gone.abort();
        };
    }, [url]);

    if (isAway) return <p role="alert">The integration API does not answer. Does `crm-sender dashboard` run?</p>;
    if (!status) return <p>Looking…</p>;
    return (
        <section aria-label="CRM integration">
            <p role="status">
                {status.crm.reachable ? "The CRM takes events" : `The CRM is away: ${status.crm.answer}`};{" "}
                {status.relay.running ? "a relay runs" : "no relay runs: start `crm-sender relay`"}.
            </p>
            <dl>
                <dt>Waiting</dt>
                <dd>{status.pending}</dd>
                <dt>Delivered</dt>
                <dd>{status.delivered}</dd>
                <dt>Held</dt>
                <dd>{status.held}</dd>
                <dt>Failed</dt>
                <dd>{status.failed}</dd>
            </dl>
            <ul>
                {status.holds?.map((hold) => (
                    <li key={hold.held_for}>
                        {hold.held} wait for {hold.waits_for}: {hold.reason}. To mend it, {hold.cure}.
                    </li>
                ))}
            </ul>
            {onTest && <button onClick={() => void onTest().then(setTested)}>Test integration</button>}
            {tested && (
                <ol aria-label="Test">
                    {tested.steps.map((step) => (
                        <li key={step.step}>
                            {step.step}: {step.ok ? "well" : "not well"} ({step.answer})
                        </li>
                    ))}
                </ol>
            )}
            <a href="/admin">Everything else</a>
        </section>
    );
}
