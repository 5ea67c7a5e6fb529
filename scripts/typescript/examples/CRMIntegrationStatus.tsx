"use client";

import { useEffect, useState } from "react";
import { IntegrationAPI, type IntegrationStatus, type TestResult, type WebhookName } from "revivatech-crm-link";

const SECONDS = 5;
const FEATURES: Record<WebhookName, string> = {
    "customer-registration": "New customers",
    "repair-request": "Repair bookings",
    "payment-status": "Payments",
    "booking-status": "Changes of a booking",
    "customer-profile": "Changes of a profile",
};

interface Props {
    /** Where the API is, where it is not `/api/crm` of this site. */
    url?: string;
    /** Where the dashboard is, where it is not `/admin` of this site. */
    dashboard?: string;
    /** Tests the way to the CRM: a server action, for the admin token stays on the server. */
    onTest?: () => Promise<TestResult>;
}

/** Say whether the events of a webhook go. */
function availability(status: IntegrationStatus, path: string): string {
    const hold = status.holds?.find(({ held_for }) => held_for === path || held_for === status.contract);
    if (hold) return `held: waits for ${hold.waits_for}`;
    if (!status.crm.reachable) return "waits: the CRM is away";
    if (!status.crm.contract_versions.includes(status.contract))
        return `held: the CRM does not speak contract ${status.contract}, update it`;
    return "available";
}

/** Shows connection, features and statistics, and what to do where it is not well. Needs no token. */
export function CRMIntegrationStatus({ url, dashboard = "/admin", onTest }: Props) {
    const [status, setStatus] = useState<IntegrationStatus>();
    const [isAway, setIsAway] = useState(false);
    const [tested, setTested] = useState<TestResult | "not made">();

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
            <ul aria-label="Features">
                {Object.entries(FEATURES).map(([name, words]) => (
                    <li key={name}>
                        {words}: {availability(status, `/${name}`)}
                    </li>
                ))}
            </ul>
            <dl aria-label="Statistics">
                <dt>Waiting</dt>
                <dd>{status.pending}</dd>
                <dt>Delivered</dt>
                <dd>{status.delivered}</dd>
                <dt>Held</dt>
                <dd>{status.held}</dd>
                <dt>Failed</dt>
                <dd>{status.failed}</dd>
            </dl>
            <ul aria-label="To be mended">
                {status.holds?.map((hold) => (
                    <li key={hold.held_for}>
                        {hold.held} wait for {hold.waits_for}: {hold.reason}. To mend it, {hold.cure}.
                    </li>
                ))}
            </ul>
            {onTest && (
                <button onClick={() => void onTest().then(setTested, () => setTested("not made"))}>
                    Test integration
                </button>
            )}
            <div role="status">
                {tested === "not made" && (
                    <p>
                        The test was not made. Does `crm-sender dashboard` run, and has this site its CRM_ADMIN_TOKEN?
                    </p>
                )}
                {tested && tested !== "not made" && (
                    <ol aria-label="Test">
                        {tested.steps.map((step) => (
                            <li key={step.step}>
                                {step.step}: {step.ok ? "well" : "not well"} ({step.answer})
                            </li>
                        ))}
                    </ol>
                )}
            </div>
            <a href={dashboard}>Failed deliveries, statistics over time, common issues</a>
        </section>
    );
}
