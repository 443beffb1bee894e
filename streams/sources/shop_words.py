"""The words of the synthetic shop. All names are made up; a category's words keep to its own subject, so that a
text encoder can tell categories apart.
"""

from __future__ import annotations

from typing import NamedTuple


class Category(NamedTuple):
    """What a category sells, how its things are described, and its typical price."""

    name: str
    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]
    purpose: str
    price: float


CATEGORIES: tuple[Category, ...] = (
    Category("hiking gear", ("hiking boots", "trekking poles", "mountain tent", "rucksack", "sleeping bag", "anorak"),
             ("waterproof", "ultralight", "alpine", "weatherproof"), "for long days on mountain trails", 120.0),
    Category("kitchenware", ("saucepan", "chef's knife", "mixing bowl", "frying pan", "casserole", "chopping board"),
             ("stainless", "cast-iron", "non-stick", "oven-safe"), "for cooking and baking at home", 45.0),
    Category("board games", ("strategy board game", "card game", "dice game", "puzzle", "chess set", "party game"),
             ("cooperative", "two-player", "family", "award-winning"), "for an evening of play around the table", 35.0),
    Category("gardening", ("watering can", "pruning shears", "flower pot", "seed box", "garden fork", "raised bed"),
             ("galvanised", "terracotta", "frost-proof", "heirloom"), "for growing flowers and vegetables", 28.0),
    Category("cycling", ("road bike", "bicycle helmet", "bike light", "cycling jersey", "pannier", "pedals"),
             ("aerodynamic", "carbon", "reflective", "gravel"), "for rides on road and gravel", 90.0),
    Category("audio", ("headphones", "loudspeaker", "turntable", "microphone", "amplifier", "earbuds"),
             ("wireless", "noise-cancelling", "studio", "high-fidelity"), "for listening to music and speech", 150.0),
    Category("baby care", ("baby stroller", "baby blanket", "nappy bag", "baby bottle", "baby rattle", "cot mobile"),
             ("soft", "organic cotton", "newborn", "hypoallergenic"), "for babies and their parents", 40.0),
    Category("photography", ("camera lens", "tripod", "camera bag", "flash unit", "mirrorless camera", "lens filter"),
             ("wide-angle", "telephoto", "full-frame", "macro"), "for taking photographs in any light", 320.0),
    Category("painting supplies", ("watercolour set", "oil paints", "easel", "paint brushes", "canvas", "sketchbook"),
             ("artist-grade", "fine-tipped", "pigment-rich", "acid-free"), "for drawing and painting pictures", 25.0),
    Category("fishing", ("fishing rod", "spinning reel", "tackle box", "landing net", "fly line", "bait set"),
             ("saltwater", "telescopic", "fly-fishing", "braided"), "for catching trout, pike and perch", 70.0),
    Category("coffee", ("espresso machine", "coffee grinder", "coffee beans", "kettle", "milk frother", "coffee cups"),
             ("single-origin", "dark-roasted", "barista", "hand-cranked"), "for brewing coffee and espresso", 65.0),
    Category("pet supplies", ("dog leash", "cat tree", "dog bed", "pet carrier", "cat litter", "chew toy"),
             ("chew-proof", "washable", "grain-free", "padded"), "for dogs, cats and other pets", 30.0),
    Category("fitness", ("dumbbells", "yoga mat", "kettlebell", "resistance bands", "exercise bench", "skipping rope"),
             ("adjustable", "non-slip", "rubber-coated", "compact"), "for strength training and yoga", 55.0),
    Category("stationery", ("fountain pen", "notebook", "ink bottle", "letter paper", "desk planner", "pencil case"),
             ("leather-bound", "dotted", "refillable", "archival"), "for writing letters and notes", 18.0),
    Category("lighting", ("floor lamp", "pendant light", "desk lamp", "wall sconce", "string lights", "lampshade"),
             ("dimmable", "brass", "frosted-glass", "warm-white"), "for lighting up living rooms", 80.0),
    Category("sailing", ("life jacket", "sailing gloves", "marine rope", "anchor", "deck shoes", "boat compass"),
             ("buoyant", "offshore", "salt-resistant", "quick-drying"), "for crews on sailing boats and yachts", 95.0),
)  # fmt: skip

BRANDS: tuple[str, ...] = (
    "Alvarra", "Bromtek", "Cendra", "Dolvik", "Estuna", "Farrowind", "Galtera", "Hjelmo", "Ivoreth", "Jundra",
    "Kestova", "Lumarr",
)  # fmt: skip
PROVIDERS: tuple[str, ...] = ("Harbour Market", "Northgate Depot", "Old Mill Store", "Parcel & Post", "Riverside Goods")
OCCUPATIONS: tuple[str, ...] = (
    "baker", "carpenter", "driver", "engineer", "gardener", "librarian", "nurse", "pilot", "retired", "student",
    "teacher", "waiter",
)  # fmt: skip
COUNTRIES: tuple[str, ...] = ("AT", "BR", "CA", "DE", "ES", "FI", "IT", "JP", "KE", "NL", "NO", "PT")
GENDERS: tuple[str, ...] = ("female", "male", "other")
