// What the types allow, and what they refuse: an error that is expected and does not come is an error too.
import {
    CRM,
    CRMUnavailable,
    EventRefused,
    IntegrationAPI,
    type CustomerRegistration,
    type IntegrationStatus,
    type RepairRequest,
    type Taken,
} from "revivatech-crm-link";

const registration: CustomerRegistration = {
    customer: {
        firstName: "Ada",
        lastName: "Lovelace",
        email: "ada@example.com",
        websiteUserId: "user-1",
        status: "pending_approval",
        preferences: { newsletter: true, hours: "after 6", visits: 3 },
    },
    metadata: { timestamp: new Date().toISOString() },
};

const repair: RepairRequest = {
    repair: {
        ticketNumber: "REV-1",
        websiteRepairId: "booking-1",
        customerEmail: "ada@example.com",
        customerName: "Ada Lovelace",
        deviceType: "Apple MacBook Pro",
        issueDescription: "The screen is cracked.",
        priority: "high",
        estimatedCost: 299.99,
        photos: ["https://example.com/1.jpg"],
        createdAt: "2026-11-24T10:00:00Z",
    },
    customer: { firstName: "Ada", lastName: "Lovelace", email: "ada@example.com", websiteUserId: "user-1" },
    metadata: { timestamp: "2026-11-24T10:00:00Z" },
};

export async function right(crm: CRM, api: IntegrationAPI): Promise<IntegrationStatus> {
    const taken: Taken = await crm.repairRequested(repair, { webhookId: "booking-1", signal: AbortSignal.timeout(9) });
    const promise: "pending_approval" | "queued" = taken.status;
    await crm.customerRegistered(registration);
    await crm.send("repair-request", repair);
    const health = await crm.health();
    if (!health.ok && health.versions) throw new Error(`${promise} ${health.answer} ${health.versions.join()}`);
    await api.retryFailed({ event: "repair-request", answer: 400 });
    return api.status();
}

export function told(error: unknown): string | undefined {
    if (error instanceof EventRefused) return error.pointers.join();
    return error instanceof CRMUnavailable ? error.webhookId : undefined;
}

export function wrong(crm: CRM, api: IntegrationAPI, status: IntegrationStatus, taken: Taken): void {
    // @ts-expect-error  one event is not the other
    void crm.customerRegistered(repair);
    // @ts-expect-error  nor by its name
    void crm.send("customer-registration", repair);
    // @ts-expect-error  there is no such webhook
    void crm.send("payment", repair);
    // @ts-expect-error  something is missing
    void crm.repairRequested({ ...repair, repair: { ticketNumber: "REV-1" } });
    // @ts-expect-error  a field that the contract does not know
    void crm.repairRequested({ ...repair, metadata: { timestamp: "2026-11-24T10:00:00Z", nonsense: 1 } });
    // @ts-expect-error  a price is a number
    void crm.repairRequested({ ...repair, repair: { ...repair.repair, estimatedCost: "299.99" } });
    // @ts-expect-error  not a priority
    void crm.repairRequested({ ...repair, repair: { ...repair.repair, priority: "yesterday" } });
    // @ts-expect-error  a time is written down
    void crm.repairRequested({ ...repair, metadata: { timestamp: new Date() } });
    // @ts-expect-error  absent is absent, not null
    void crm.repairRequested({ ...repair, repair: { ...repair.repair, notes: null } });
    // @ts-expect-error  a customer waits for approval
    void crm.customerRegistered({ ...registration, customer: { ...registration.customer, status: "approved" } });
    // @ts-expect-error  settings are plain values
    registration.customer.preferences = { hours: ["after 6"] };
    // @ts-expect-error  a receipt promises one of two things
    if (taken.status === "delivered") return;
    // @ts-expect-error  not a count that there is
    void status.lost;
    // @ts-expect-error  a filter that there is not
    void api.retryFailed({ customer: "ada@example.com" });
    // @ts-expect-error  seconds are numbers
    void new CRM({ timeout: "5" });
}
