"""People who do not exist, and what they ask of a repair shop: events as the website would send them.

Addresses end in the domains that are reserved for examples (RFC 2606), telephone numbers are those that
Ofcom keeps for drama, so that nobody is ever written to or called. Pure: chance is an argument.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

FIRST_NAMES = (
    *("Aisha", "Alan", "Amara", "Anna", "Arjun", "Beatrice", "Bronwyn", "Callum", "Chidi", "Chloé", "Conor"),
    *("Daniel", "Deepa", "Dylan", "Eilidh", "Elif", "Emeka", "Emma", "Erin", "Esther", "Fatima", "Finlay"),
    *("Freya", "George", "Grace", "Hamza", "Hannah", "Harpreet", "Hugh", "Imogen", "Ines", "Isaac", "Jakub"),
    *("James", "Jasmine", "Joanna", "Kofi", "Leila", "Lewis", "Liam", "Lucy", "Maja", "Marek", "Megan"),
    *("Mohammed", "Mei", "Nadia", "Niamh", "Noah", "Olivia", "Oluwaseun", "Patrick", "Priya", "Rhys", "Rosa"),
    *(
        "Samuel",
        "Sanjay",
        "Siân",
        "Sofia",
        "Theo",
        "Thu",
        "Tomasz",
        "Umar",
        "Victoria",
        "Wei",
        "Yusuf",
        "Zoë",
    ),
)
LAST_NAMES = (
    *("Adebayo", "Ahmed", "Ali", "Bailey", "Begum", "Bennett", "Brown", "Campbell", "Chowdhury", "Clarke"),
    *(
        "Cohen",
        "Cooper",
        "Davies",
        "Diaz",
        "Edwards",
        "Evans",
        "Fernandes",
        "Fraser",
        "Gill",
        "Green",
        "Griffiths",
    ),
    *("Hall", "Hughes", "Hussain", "Iqbal", "Jackson", "Jones", "Kaur", "Kelly", "Khan", "Kowalska", "Lewis"),
    *("Li", "MacDonald", "Mensah", "Mitchell", "Morgan", "Müller", "Murphy", "Nguyễn", "Nowak", "O'Brien"),
    *(
        "O'Neill",
        "Okafor",
        "Owen",
        "Patel",
        "Price",
        "Rahman",
        "Roberts",
        "Robinson",
        "Scott",
        "Shah",
        "Singh",
    ),
    *(
        "Smith",
        "Stewart",
        "Taylor",
        "Thomas",
        "Thompson",
        "Walker",
        "Wang",
        "Ward",
        "Williams",
        "Wright",
        "Young",
    ),
)
STREETS = (
    "Abbey Road",
    "Canal Street",
    "Church Lane",
    "Mill Hill",
    "Park Row",
    "Station Road",
    "Victoria Terrace",
)
TOWNS = ("Bristol", "Cardiff", "Edinburgh", "Leeds", "London", "Manchester", "Norwich", "Sheffield", "York")
TELEPHONES = ("020 7946 0{:03}", "07700 900{:03}", "0117 496 0{:03}", "0161 496 0{:03}", "+44 7700 900{:03}")
"""Ofcom's numbers for drama."""
DOMAINS = ("example.com", "example.net", "example.org")


@dataclass(frozen=True)
class Repair:
    """Something that breaks, and what it costs to mend, in pounds from about to about."""

    devices: tuple[tuple[str, str], ...]
    service: str
    cost: tuple[int, int]
    issues: tuple[str, ...]


LAPTOPS = (
    ("Apple MacBook Pro", 'MacBook Pro 14" (2023)'),
    ("Apple MacBook Air", "MacBook Air M2"),
    ("Dell XPS", "XPS 13 9315"),
    ("Lenovo ThinkPad", "ThinkPad X1 Carbon Gen 11"),
    ("HP Pavilion", "Pavilion 15-eg3"),
)
TELEPHONES_AND_TABLETS = (
    ("Apple iPhone", "iPhone 14"),
    ("Apple iPhone", "iPhone SE (2022)"),
    ("Samsung Galaxy", "Galaxy S23"),
    ("Google Pixel", "Pixel 8"),
    ("Apple iPad", "iPad Air (5th generation)"),
)
CONSOLES = (
    ("Sony PlayStation", "PlayStation 5"),
    ("Nintendo Switch", "Switch OLED"),
    ("Xbox Series", "Series S"),
)
REPAIRS = (
    Repair(
        LAPTOPS + TELEPHONES_AND_TABLETS,
        "SCREEN_REPAIR",
        (89, 420),
        (
            "Dropped on the kitchen floor. The screen is cracked from corner to corner, touch still works.",
            "Purple lines down the left side since Tuesday.\nThey go away when I press on the lid.",
            "The display stays black, but it rings and vibrates.",
        ),
    ),
    Repair(
        LAPTOPS + TELEPHONES_AND_TABLETS,
        "BATTERY_REPLACEMENT",
        (59, 190),
        (
            "The battery is empty after an hour, even in flight mode.",
            "Switches itself off at 30 %. It is three years old.",
            "The back has begun to bulge. I have stopped charging it.",
        ),
    ),
    Repair(
        LAPTOPS,
        "WATER_DAMAGE",
        (120, 600),
        (
            "A cup of tea went over the keyboard. I turned it off at once and have not tried it since.",
            "It was in a bag with a leaking bottle. The fans run, nothing is shown.",
        ),
    ),
    Repair(
        LAPTOPS,
        "DATA_RECOVERY",
        (150, 800),
        (
            "It no longer starts and my dissertation is on it. There is no backup, please do not erase anything.",
            "Clicking noises, then a grey screen with a question mark.",
        ),
    ),
    Repair(
        CONSOLES + LAPTOPS,
        "DIAGNOSIS",
        (0, 60),
        (
            "Gets very hot and loud after ten minutes, then turns off.",
            "No sound from the left speaker, and the socket for the headphones is loose.",
            "I do not know what is wrong: it beeps three times and that is all.",
        ),
    ),
)
NOTES = (
    "Please ring before noon.",
    "Can be collected by my daughter.",
    "I need it back by the weekend if possible.",
)
REASONS = (
    "Booked twice: the other request is approved.",
    "Called: the customer has had it repaired elsewhere.",
    "We do not repair this model.",
    "The telephone number and the e-mail do not exist.",
)
"""Why staff reject."""


@dataclass(frozen=True)
class Person:
    """Somebody who does not exist."""

    id: str
    first: str
    last: str
    email: str
    phone: str | None


def make_person(chance: Random, id_: str) -> Person:
    """Return a person with this id on the website."""
    first, last = chance.choice(FIRST_NAMES), chance.choice(LAST_NAMES)
    tail = chance.choice(("", "", str(chance.randrange(60, 100))))
    email = f"{in_ascii(first)}.{in_ascii(last)}{tail}@{chance.choice(DOMAINS)}"
    phone = chance.choice(TELEPHONES).format(chance.randrange(1000)) if chance.random() < 0.85 else None
    return Person(id_, first, last, email, phone)


def in_ascii(name: str) -> str:
    """Write a name as people write it in an address."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return plain.replace("'", "").lower()


def registration(chance: Random, person: Person, at: datetime) -> dict[str, Any]:
    """Return the event of somebody who registers."""
    customer = {
        **blocks_customer(person),
        "registrationDate": written(at),
        "source": "revivatech",
        "language": "en",
        "status": "pending_approval",
        "preferences": {"newsletter": chance.random() < 0.3},
    }
    return {"customer": customer, "metadata": {"registrationSource": "website", "timestamp": written(at)}}


def repair_request(chance: Random, person: Person, key: str, at: datetime) -> dict[str, Any]:
    """Return the event of somebody who books a repair; `key` tells it from all others."""
    kind = chance.choice(REPAIRS)
    device, model = chance.choice(kind.devices)
    repair: dict[str, Any] = {
        "ticketNumber": f"REV-{at.year}-{key.rpartition('-')[2].upper():0>5}",
        "websiteRepairId": f"booking-{key}",
        "customerEmail": person.email,
        "customerName": f"{person.first} {person.last}",
        "deviceType": device,
        "issueDescription": chance.choice(kind.issues),
        "serviceType": kind.service,
        "priority": chance.choices(("low", "normal", "high", "urgent"), (1, 7, 2, 1))[0],
        "language": "en",
        "createdAt": written(at),
        "estimatedCost": float(chance.randint(*kind.cost)),
        "currency": "GBP",
    }
    if chance.random() < 0.7:
        repair["deviceModel"] = model
    if chance.random() < 0.5:
        street = f"{chance.randint(1, 180)} {chance.choice(STREETS)}"
        repair["address"] = f"{street}\n{chance.choice(TOWNS)}"
    if chance.random() < 0.3:
        repair["notes"] = chance.choice(NOTES)
    if chance.random() < 0.2:
        repair["photos"] = [f"https://photos.example/{key}/{number}.jpg" for number in (1, 2)]
    metadata = {"source": "revivatech", "bookingChannel": "website", "timestamp": written(at)}
    return {"repair": repair, "customer": blocks_customer(person), "metadata": metadata}


PAYMENTS = ("pending", "paid", "paid", "paid", "failed", "refunded")
BOOKINGS = ("confirmed", "confirmed", "rescheduled", "rescheduled", "arrived", "cancelled", "no_show")
EXCUSES = ("I am away that week.", "My train is late.", "It works again, thank you all the same.")


def payment_status(chance: Random, booked: dict[str, Any], key: str, at: datetime) -> dict[str, Any]:
    """Return the event of a payment for a repair that was booked."""
    payment = {
        **_about(booked["repair"], key),
        "websitePaymentId": f"payment-{key}",
        "status": chance.choice(PAYMENTS),
        "amount": booked["repair"]["estimatedCost"],
        "currency": "GBP",
        "method": chance.choice(("card", "card", "cash", "bank_transfer")),
        "occurredAt": written(at),
    }
    return {"payment": payment, **_of_known(booked["customer"]["websiteUserId"], at)}


def booking_status(chance: Random, booked: dict[str, Any], key: str, at: datetime) -> dict[str, Any]:
    """Return the event of a booking that has moved on."""
    status = chance.choice(BOOKINGS)
    booking = {**_about(booked["repair"], key), "status": status, "occurredAt": written(at)}
    if status in ("confirmed", "rescheduled"):
        booking["scheduledFor"] = written(at + timedelta(days=chance.randint(1, 9)))
    if status in ("rescheduled", "cancelled"):
        booking["reason"] = chance.choice(EXCUSES)
    return {"booking": booking, **_of_known(booked["customer"]["websiteUserId"], at)}


def customer_profile(chance: Random, person: Person, key: str, at: datetime) -> dict[str, Any]:
    """Return the event of somebody who has another telephone, or wants a newsletter or none."""
    changed: dict[str, Any] = {"phone": chance.choice(TELEPHONES).format(chance.randrange(1000))}
    if chance.random() < 0.4:
        changed = {"preferences": {"newsletter": chance.random() < 0.5}}
    metadata = {"websiteEventId": key, "source": "revivatech", "changedAt": written(at)}
    return {
        "customer": {"websiteUserId": person.id, **changed},
        "metadata": {**metadata, "timestamp": written(at)},
    }


def _about(repair: dict[str, Any], key: str) -> dict[str, Any]:
    return {"websiteEventId": key, **{name: repair[name] for name in ("websiteRepairId", "ticketNumber")}}


def _of_known(user: str, at: datetime) -> dict[str, Any]:
    metadata = {"source": "revivatech", "timestamp": written(at)}
    return {"customer": {"websiteUserId": user}, "metadata": metadata}


def blocks_customer(person: Person) -> dict[str, Any]:
    """Return what both events say of a person."""
    found = {
        "firstName": person.first,
        "lastName": person.last,
        "email": person.email,
        "websiteUserId": person.id,
    }
    return found | ({"phone": person.phone} if person.phone else {})


def written(at: datetime) -> str:
    """Write a time in UTC to the second, as the website does."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
