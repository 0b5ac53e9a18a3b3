"""What the demo shop sells: kinds of goods, made-up brands, colours, and words to describe them with."""

from dataclasses import dataclass
from typing import Final

WOMEN: Final = ("36", "36.5", "37", "37.5", "38", "38.5", "39", "40", "41", "42")
MEN: Final = ("40", "41", "41.5", "42", "42.5", "43", "44", "44.5", "45", "46", "47")
EVERYBODY: Final = ("36", "37", "38", "39", "40", "41", "42", "43", "44", "45", "46")
CHILDREN: Final = ("28", "29", "30", "31", "32", "33", "34", "35")
TODDLERS: Final = ("20", "21", "22", "23", "24", "25", "26", "27")
LETTERS: Final = ("XS", "S", "M", "L", "XL", "XXL")
HEIGHTS: Final = ("104", "110", "116", "122", "128", "134", "140", "146")
SOCKS: Final = ("35-38", "39-42", "43-46")
BELTS: Final = ("75", "85", "95", "105", "115")


@dataclass(frozen=True)
class Audience:
    """Whom a product is for, in the feed's words, and how its title says so."""

    gender: str
    age_group: str
    title: str
    sizes: tuple[str, ...]


SHOES: Final = (
    Audience("female", "adult", "Women's ", WOMEN),
    Audience("male", "adult", "Men's ", MEN),
    Audience("unisex", "adult", "", EVERYBODY),
)
YOUNG_SHOES: Final = (
    Audience("unisex", "kids", "Kids' ", CHILDREN),
    Audience("female", "kids", "Girls' ", CHILDREN),
    Audience("male", "kids", "Boys' ", CHILDREN),
    Audience("unisex", "toddler", "Toddlers' ", TODDLERS),
)
CLOTHES: Final = (Audience("female", "adult", "Women's ", LETTERS), Audience("male", "adult", "Men's ", LETTERS))
YOUNG_CLOTHES: Final = (Audience("unisex", "kids", "Kids' ", HEIGHTS),)


@dataclass(frozen=True)
class Kind:
    """One kind of goods: where it hangs in the shop, how many products, prices in whole euros, what it can be."""

    path: str
    noun: str
    products: int
    cheapest: int  # for adults; children pay less
    dearest: int
    audiences: tuple[Audience, ...]
    materials: tuple[str, ...]
    traits: tuple[str, ...]
    """Each completes 'Expect ...'."""


TOP: Final = "Apparel & Accessories > "
LEATHER: Final = ("leather", "nubuck", "suede")
KINDS: Final = (
    Kind(
        f"{TOP}Shoes > Sneakers", "Sneaker", 62, 59, 159, SHOES + YOUNG_SHOES[:1],
        ("leather", "canvas", "recycled polyester", "suede"),
        ("a removable cork insole", "a stitched rubber cup sole", "a padded collar that does not rub",
         "an upper cut from one piece", "laces of waxed cotton"),
    ),
    Kind(
        f"{TOP}Shoes > Running Shoes", "Running Shoe", 34, 89, 189, SHOES[:2], ("mesh", "recycled polyester"),
        ("eight millimetres of drop", "a foam midsole that stays soft in the cold", "a wide toe box",
         "reflective loops at the heel"),
    ),
    Kind(
        f"{TOP}Shoes > Trail Running Shoes", "Trail Running Shoe", 22, 99, 199, SHOES[:2], ("ripstop nylon", "mesh"),
        ("five-millimetre lugs for mud", "a rock plate under the forefoot", "a gusseted tongue that keeps grit out"),
    ),
    Kind(
        f"{TOP}Shoes > Boots > Hiking Boots", "Hiking Boot", 26, 129, 279, SHOES, ("nubuck", "leather", "cordura"),
        ("a waterproof membrane", "a sole that can be replaced", "hooks that hold the lace half-way",
         "a rubber rand all around"),
    ),
    Kind(
        f"{TOP}Shoes > Boots > Ankle Boots", "Ankle Boot", 26, 89, 229, SHOES[:2], LEATHER,
        ("a side zip under a leather flap", "a stacked heel of four centimetres", "a lining of soft shearling"),
    ),
    Kind(
        f"{TOP}Shoes > Boots > Chelsea Boots", "Chelsea Boot", 20, 99, 249, SHOES[:2], LEATHER,
        ("elastic that keeps its shape", "pull loops front and back", "a welted sole"),
    ),
    Kind(
        f"{TOP}Shoes > Boots > Rain Boots", "Rain Boot", 14, 29, 89, SHOES[2:] + YOUNG_SHOES[3:],
        ("natural rubber",), ("a quick-drying cotton lining", "a sole that grips wet leaves", "a reflective band"),
    ),
    Kind(
        f"{TOP}Shoes > Loafers", "Loafer", 16, 79, 199, SHOES[:2], LEATHER,
        ("a hand-sewn apron", "a flexible leather sole", "a cushioned heel bed"),
    ),
    Kind(
        f"{TOP}Shoes > Oxfords", "Oxford", 14, 119, 289, SHOES[:2], ("leather", "patent leather"),
        ("a welted sole that a cobbler can renew", "closed lacing", "a heel of stacked leather"),
    ),
    Kind(
        f"{TOP}Shoes > Sandals", "Sandal", 24, 39, 129, SHOES + YOUNG_SHOES[:1], ("leather", "cork", "webbing"),
        ("a footbed shaped by walking", "three straps that adjust", "a sole that grips wet stone"),
    ),
    Kind(
        f"{TOP}Shoes > Slippers", "Slipper", 12, 24, 79, SHOES[2:] + YOUNG_SHOES[:1], ("wool felt", "sheepskin"),
        ("a sole of natural latex", "a heel that folds down", "felt that may go into the washing machine"),
    ),
    Kind(
        f"{TOP}Shoes > Children's Shoes", "First Walker", 18, 69, 139, YOUNG_SHOES, ("leather", "canvas"),
        ("two straps that small hands can close", "a toe cap for scooters", "room for toes to spread"),
    ),
    Kind(
        f"{TOP}Clothing > Outerwear > Rain Jackets", "Rain Jacket", 14, 89, 259, CLOTHES + YOUNG_CLOTHES,
        ("recycled polyester", "waxed cotton"),
        ("taped seams", "a hood that turns with the head", "zips under the arms"),
    ),
    Kind(
        f"{TOP}Clothing > Knitwear > Sweaters", "Sweater", 14, 69, 189, CLOTHES, ("merino wool", "lambswool", "cotton"),
        ("seams that do not itch", "elbows knitted double", "cuffs that keep their shape"),
    ),
    Kind(
        f"{TOP}Clothing > Shirts & Tops > T-Shirts", "T-Shirt", 14, 19, 49, CLOTHES + YOUNG_CLOTHES,
        ("organic cotton", "merino wool"), ("a collar that stays flat", "a slightly longer back", "flat seams"),
    ),
    Kind(
        f"{TOP}Clothing > Underwear & Socks > Socks", "Walking Socks", 10, 9, 29,
        (Audience("unisex", "adult", "", SOCKS),), ("merino wool", "organic cotton"),
        ("hand-linked toes", "terry loops under heel and ball", "an arch that holds without pressing"),
    ),
    Kind(
        f"{TOP}Clothing Accessories > Belts", "Belt", 8, 29, 79, (Audience("unisex", "adult", "", BELTS),),
        ("leather", "webbing"), ("a solid brass buckle", "burnished edges", "a buckle that can be changed"),
    ),
)  # fmt: skip

BRANDS: Final = (
    "Alderwick", "Brisewell", "Dunmarrow", "Fennimore Lane", "Halvorn", "Kindlebrook", "Lumanord", "Morrowstep",
    "Nimbletree", "Oakhollow", "Pennyfarrow", "Quaysander", "Solvane", "Tarnfeld", "Veldora", "Wrenhaven",
)  # fmt: skip

MODELS: Final = (
    "Amble", "Aria", "Basalt", "Birch", "Calder", "Cinder", "Comet", "Delta", "Drift", "Ember", "Fable", "Fjord",
    "Gale", "Grove", "Harbour", "Hazel", "Iris", "Juniper", "Kestrel", "Lagoon", "Linden", "Meadow", "Mistral",
    "Nomad", "Orchard", "Otter", "Pebble", "Pine", "Quill", "Ridge", "Rowan", "Saffron", "Sparrow", "Summit",
    "Tern", "Thistle", "Tundra", "Vale", "Willow", "Zephyr",
)  # fmt: skip

COLORS: Final = (
    "Black", "White", "Navy", "Cognac", "Dark Brown", "Sand", "Olive", "Grey", "Burgundy", "Sky Blue", "Rust", "Cream",
    "Forest Green", "Plum", "Mustard",
)  # fmt: skip

WALKS: Final = (
    "long days on your feet", "the way to work and the walk home", "weekends out of town", "wet mornings",
    "cobbled streets", "travelling light", "evenings that grow late", "school runs and errands",
    "people who walk a lot", "the garden gate and the market", "those who like few things that last",
)  # fmt: skip
DAYS: Final = (
    "days that begin cold and end warm", "travelling light", "weekends out of town", "the office and after it",
    "those who like few things that last", "every day of the week", "evenings by the water",
)  # fmt: skip

OPENINGS: Final = (
    "Made of {material} for {occasion}.",
    "The {noun} in {material}, for {occasion}.",
    "Our buyers' favourite for {occasion}, cut from {material}.",
    "Plain, light and made of {material}: for {occasion}.",
    "{material_first} outside, comfort inside, made for {occasion}.",
    "For {occasion}: {material} that gets better with wear.",
)

CLOSINGS: Final = (
    "Expect {trait} and {fit}.",
    "With {trait}; {fit_long}.",
    "You will notice {trait}, and {fit_long}.",
    "What makes it last: {trait}; what makes it yours: {fit}.",
)

SHOE_FITS: Final = (
    ("a fit true to size", "it fits true to size"),
    ("a slightly narrow fit", "it is a little narrow: between two sizes, take the larger"),
    ("a generous fit", "there is room for thick socks"),
    ("an easy fit", "most customers keep the size they always wear"),
)
CLOTHES_FITS: Final = (
    ("a fit true to size", "it fits true to size"),
    ("a close fit", "it is cut close: between two sizes, take the larger"),
    ("an easy fit", "most customers keep the size they always wear"),
)
