"""Words of the trade that mean the same, in English, German and Czech: a shop whose texts are in one of these languages
is searched in the others, too. A text in the customer's language is found without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from services.catalog.domain.spelling import misspelt
from services.catalog.domain.words import QueryWord, fold, forms_of_text, query_word

# English | German | Czech.
_SAME = """
shoe shoes footwear | schuh schuhe schuhwerk | bota boty obuv
sneaker sneakers trainer trainers | turnschuh turnschuhe sportschuh sportschuhe | teniska tenisky
boot boots | stiefel | kozačka kozačky holínka
ankle | stiefelette stiefeletten knöchel | kotníkový kotníkové
running runner jogging | laufen lauf jogging | běžecký běžecké běh
trail | gelände trail | krosový krosové trailový trailové
hiking trekking | wandern wander trekking | turistický turistické trek trekový trekové
rain wellington wellingtons gumboot gumboots | regen gummi | déšť pršiplášť nepromokavý nepromokavé gumový gumové
loafer loafers moccasin moccasins | slipper mokassin mokassins | mokasína mokasíny
oxford oxfords brogue brogues | oxford schnürschuh schnürschuhe halbschuh halbschuhe | polobotka polobotky
sandal sandals | sandale sandalen | sandál sandály
slipper slippers | hausschuh hausschuhe pantoffel pantoffeln | bačkora bačkory pantofle papuče
jacket coat | jacke mantel | bunda kabát
sweater pullover jumper knitwear | pullover pulli strickpullover | svetr svetry
tshirt tee | tshirt shirt | tričko trička triko
sock socks | socke socken strumpf strümpfe | ponožka ponožky
belt belts | gürtel | pásek pásky opasek
woman women ladies lady female | damen dame frau frauen | dámský dámské dámská žena ženy
man men gentlemen male | herren herr mann männer | pánský pánské pánská muž muži
kid kids child children | kind kinder | dítě děti dětský dětské dětská
girl girls | mädchen | dívka dívky dívčí
boy boys | junge jungen jungs | chlapec chlapci chlapecký chlapecké klučičí
toddler toddlers baby | kleinkind kleinkinder baby | batole batolata
black | schwarz schwarze schwarzer schwarzes schwarzen | černá černé černý
white | weiß weiße weißer weißes weißen | bílá bílé bílý
blue navy | blau blaue blauer blaues blauen marine dunkelblau dunkelblaue | modrá modré modrý
red | rot rote roter rotes roten | červená červené červený
green | grün grüne grüner grünes grünen | zelená zelené zelený
olive | oliv olive olivgrün | olivová olivové olivový
grey gray | grau graue grauer graues grauen | šedá šedé šedý
brown | braun braune brauner braunes braunen dunkelbraun dunkelbraune | hnědá hnědé hnědý
yellow mustard | gelb gelbe gelber senf senfgelb | žlutá žluté žlutý hořčicová hořčicové
sand beige | sand sandfarben beige | písková pískové béžová béžové
cream | creme cremefarben | krémová krémové krémový
burgundy bordeaux | burgunder bordeaux weinrot weinrote | vínová vínové bordó
rust | rost rostrot rostfarben | rezavá rezavé
plum purple | pflaume lila | švestková švestkové fialová fialové
leather | leder ledern | kůže kožený kožené kožená
suede | wildleder veloursleder | semiš semišový semišové
canvas | leinen canvas segeltuch | plátno plátěný plátěné
wool | wolle woll | vlna vlněný vlněné vlněná
merino | merino merinowolle | merino
felt | filz | plst plstěný plstěné
cotton | baumwolle | bavlna bavlněný bavlněné bavlněná
rubber | kautschuk gummi | guma gumový gumové
waterproof watertight | wasserdicht wasserdichte wasserfest | nepromokavý nepromokavé voděodolný voděodolné
"""

# Words that say what others say in two, in the words above.
_TOGETHER = {
    "laufschuh laufschuhe joggingschuhe": "running shoe",
    "trailschuhe traillaufschuhe geländelaufschuhe": "trail running",
    "wanderschuh wanderschuhe wanderstiefel trekkingschuhe bergschuhe": "hiking boot",
    "treky trekovky pohorky": "hiking boot",
    "gummistiefel regenstiefel holínky gumáky galoše": "rain boot",
    "wellies": "rain boot",
    "chelseaboots chelsea-boots": "chelsea boot",
    "regenjacke regenjacken regenmantel pláštěnka": "rain jacket",
    "kinderschuh kinderschuhe": "kids shoe",
    "damenschuhe": "women shoe",
    "herrenschuhe": "men shoe",
    "lauflernschuhe capáčky": "first walker",
    "ledergürtel": "leather belt",
    "wollsocken": "wool socks",
    "polokošile": "polo",
}


def understood(word: QueryWord) -> Sequence[QueryWord]:
    """The word with all that means the same; several words where it says what others say in several."""
    for form in _known_first(word):
        if parts := _together().get(form):
            return [_with(word, query_word(part)) for part in parts]
    return [_with(word, word)]


def near(typed: str) -> set[str]:
    """Words that are written nearly so, as `spelling.misspelt` finds them."""
    return set().union(*(_misspelt().get(part, ()) for part in misspelt(typed)))


def _with(written: QueryWord, meant: QueryWord) -> QueryWord:
    forms = written.forms | meant.forms
    for form in _known_first(meant):
        if found := _same().get(form):
            forms |= found
            break
    return replace(written, forms=forms)


def _known_first(word: QueryWord) -> list[str]:
    """What it is looked up by: as it is written before its stems, which may be those of another word."""
    return [*sorted(word.exact), *sorted(word.own - word.exact)]


@cache
def _same() -> dict[str, frozenset[str]]:
    written: dict[str, frozenset[str]] = {}
    stems: dict[str, frozenset[str]] = {}
    for line in _SAME.strip().splitlines():
        languages = list(zip(("en", "de", "cs"), line.split("|"), strict=True))
        forms = frozenset[str]().union(*(forms_of_text(words, language) for language, words in languages))
        for form in forms:
            stems[form] = stems.get(form, frozenset()) | forms
        for _, words in languages:
            for word in fold(words).split():
                written[word] = written.get(word, frozenset()) | forms
    return stems | written


@cache
def _together() -> dict[str, Sequence[str]]:
    return {
        fold(word).replace("-", ""): meaning.split() for words, meaning in _TOGETHER.items() for word in words.split()
    }


@cache
def _misspelt() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for word in {*_SAME.replace("|", " ").split(), *" ".join(_TOGETHER).split()}:
        for part in misspelt(fold(word)):
            found.setdefault(part, set()).add(word)
    return found
