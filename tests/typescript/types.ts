// What the types allow, and what they refuse: an error that is expected and does not come is an error too.
import {
    CRM,
    CRMUnavailable,
    EventRefused,
    IntegrationAPI,
    type BookingStatus,
    type CustomerProfile,
    type CustomerRegistration,
    type IntegrationStatus,
    type PaymentStatus,
    type RepairRequest,
    type Taken,
    type Told,
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

const payment: PaymentStatus = {
    payment: {
        websiteEventId: "payment-1-paid",
        websitePaymentId: "payment-1",
        websiteRepairId: "booking-1",
        ticketNumber: "REV-1",
        status: "paid",
        amount: 299.99,
        currency: "GBP",
        occurredAt: "2026-11-25T10:00:00Z",
    },
    customer: { websiteUserId: "user-1" },
    metadata: { timestamp: "2026-11-25T10:00:00Z" },
};

const booking: BookingStatus = {
    booking: {
        websiteEventId: "booking-1-rescheduled",
        websiteRepairId: "booking-1",
        ticketNumber: "REV-1",
        status: "rescheduled",
        scheduledFor: "2026-11-30T10:00:00Z",
        occurredAt: "2026-11-25T10:00:00Z",
    },
    customer: { websiteUserId: "user-1" },
    metadata: { timestamp: "2026-11-25T10:00:00Z" },
};

const profile: CustomerProfile = {
    customer: { websiteUserId: "user-1", phone: "+44 20 7946 0001" },
    metadata: {
        websiteEventId: "profile-1",
        changedAt: "2026-11-25T10:00:00Z",
        timestamp: "2026-11-25T10:00:00Z",
    },
};

export async function later(crm: CRM): Promise<string> {
    const { id } = await crm.paymentChanged(payment);
    await crm.bookingChanged(booking);
    await crm.profileChanged(profile);
    await crm.send("payment-status", payment);
    const told: Told = await crm.receipt(id, AbortSignal.timeout(9));
    switch (told.told) {
        case "outcome":
            return `${told.outcome.event} ${told.outcome.status} ${told.outcome.decided_at ?? ""}`;
        case "away":
            return `${told.answer} ${told.retryAfter ?? ""}`;
        case "misconfigured":
            return told.cure;
        case "unknown":
        case "too-old":
            return told.told;
    }
}

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
    // @ts-expect-error  nor a payment a booking
    void crm.bookingChanged(payment);
    // @ts-expect-error  nor a registration a profile
    void crm.profileChanged(registration);
    // @ts-expect-error  nor a profile a registration
    void crm.customerRegistered(profile);
    // @ts-expect-error  an amount is a number
    void crm.paymentChanged({ ...payment, payment: { ...payment.payment, amount: "299.99" } });
    // @ts-expect-error  an amount has its currency
    void crm.paymentChanged({ ...payment, payment: { ...payment.payment, currency: undefined } });
    // @ts-expect-error  not a state of a payment
    void crm.paymentChanged({ ...payment, payment: { ...payment.payment, status: "rescheduled" } });
    // @ts-expect-error  not a state of a booking
    void crm.bookingChanged({ ...booking, booking: { ...booking.booking, status: "paid" } });
    // @ts-expect-error  whose booking it is must be said
    void crm.bookingChanged({ booking: booking.booking, metadata: booking.metadata });
    // @ts-expect-error  a change has an id of its own
    void crm.profileChanged({ ...profile, metadata: { changedAt: "", timestamp: "" } });
    // @ts-expect-error  not a field of a profile
    void crm.profileChanged({ ...profile, customer: { websiteUserId: "user-1", status: "pending_approval" } });
    // @ts-expect-error  a receipt is asked for by its id
    void crm.receipt(taken);
    // @ts-expect-error  there may be no outcome to tell of
    void crm.receipt(taken.id).then((told) => told.outcome.status);
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
