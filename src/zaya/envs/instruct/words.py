"""The words that requests, required words and reference answers are made of.

Three stocks that do not overlap: what an answer has to mention, what our own sentences are built from, and names. A
reference for one problem therefore never mentions what another one asks for by accident.
"""

from __future__ import annotations


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SINGLE = _split(
    """
    anchor almond amber anvil apron arrow atlas autumn badge bamboo banjo barrel basil beacon beetle blanket blossom
    bottle branch brick bridge bronze bucket butter button cabin cactus camel candle canvas carpet castle cedar cellar
    chalk cherry chimney cinnamon circus clover cobalt coffee comet copper coral cotton cradle crystal curtain cushion
    dagger daisy desert diamond dolphin dragon drawer eagle ember engine falcon feather fiddle flannel flute forest
    fossil fountain galaxy garlic garnet ginger glacier goblet granite grape guitar hammer harbour harvest hazel helmet
    hermit honey horizon hornet indigo island ivory jacket jasmine jewel juniper kernel kettle kiosk kitten ladder
    lagoon lantern laurel lavender lemon lizard locket lotus magnet mango mantle maple marble meadow medal mirror
    monsoon mosaic museum mustard napkin nectar needle nutmeg oasis olive onyx orchid otter oyster paddle parrot
    pebble pepper petal piano pillow pocket pollen prism pumpkin puzzle quartz quiver rabbit raisin ribbon
    rocket saddle saffron sandal scarlet shadow spider spiral sponge statue summit sunset tablet talon teapot
    temple thimble thistle thunder tiger timber tractor trumpet tulip tunnel turnip umber vanilla velvet violin volcano
    waffle walnut walrus willow window winter yogurt zephyr zipper
    """
)
"""What an answer has to mention, and what instructions are about. Three of these tell one problem from another."""

NOUNS = _split(
    """
    sailors farmers bakers painters doctors teachers drivers singers neighbours visitors children travellers gardeners
    builders writers dancers pilots tailors merchants poets scholars porters weavers miners hikers judges clerks cooks
    guards smiths nurses actors lanes towers walls gates roofs stones boats nets sails ropes baskets loaves apples
    pears plums carrots beans herbs seeds flowers leaves roots trees hills valleys rivers lakes ponds streams shores
    cliffs caves clouds storms winds paths roads fields barns fences horses sheep goats geese hens cats dogs owls
    crows bees songs tales poems letters books maps lamps clocks chairs tables benches doors keys coins tools wheels
    carts plates cups spoons knives shirts coats hats boots gloves scarves trains ships planes markets schools shops
    kitchens gardens villages cities festivals stories questions answers lessons plans dreams ideas memories
    evenings mornings seasons summers igloos iguanas icons inns umpires uncles urns unicorns yachts
    yaks yards yarns xylophones xylems xebecs quails quarries queens quilts zebras zeppelins zithers zones ears
    elephants oranges orchards oxen violets vines veils vans jars jugs
    kings kites knights kilns nests nurseries nuts
    """
)
VERBS = _split(
    """
    carry paint build mend watch clean gather plant count praise follow admire borrow cover draw enjoy fetch guard help
    invite join keep lift move notice open pull push quote raise sell trade unpack visit wash yield zip allow adorn
    bring catch cross enter explore find greet hold honour inspect inherit judge juggle kick knit learn load mark
    measure need observe offer order pass protect question repair shape share sort teach taste use utter
    value view warm weigh yearn
    """
)
ADJECTIVES = _split(
    """
    quiet bright old young small large gentle heavy wide green golden silver wooden ancient modern simple clever
    patient eager calm busy cheerful curious distant early empty familiar fresh grand honest humble icy idle jolly
    joyful keen kind late lively loyal merry mild neat noble odd open plain proud quick rare rich round rustic safe
    sharp shiny smooth soft steady strong sweet tall tender tidy tiny upper urban useful usual vast vivid warm weary
    wild wise yellow youthful zany zealous xeric eastern equal elegant
    """
)
BANK = (*NOUNS, *VERBS, *ADJECTIVES)

NAMES = _split(
    """
    Adriana Alberto Amanda Beatrix Benno Bruno Camila Carlos Carmen Clara Dario Dora Edgar Elena Elias Erika Fabian
    Felix Fiona Florian Gerda Gustav Helena Hugo Ines Irene Jasper Joaquin Julia Karla Konrad Laura Leonor Lorenzo Luisa
    Marco Marina Martin Melina Milan Mirko Nadia Oskar Otto Paula Pedro Ramona Renata Roberta Rosalia Sandro Silvia
    Simon Sonja Stefan Tamara Teresa Tobias Ursula Valentin Vera Viktor Wanda Xaver Yvonne
    """
)
"""For answers in another language: a name is the same word in all of them. None is on IFBench's list of names."""

STOP_WORDS = frozenset(
    _split(
        """
    a about above after again against all am an and any are as at be because been before being below between both but by
    can could did do does doing down during each few for from further had has have having he her here hers herself him
    himself his how i if in into is it its itself just me more most my myself no nor not now of off on once only or
    other our ours ourselves out over own same she should so some such than that the their theirs them themselves then
    there these they this those through to too under until up very was we were what when where which while who whom why
    will with would you your yours yourself yourselves s t don
    """
    )
)
"""Articles, pronouns, prepositions, conjunctions, auxiliaries: the words of English that carry grammar."""

TOPICS = (
    "a small railway station", "a village bakery", "a night market", "the first day of spring", "a lighthouse",
    "a mountain hut", "a public library", "a harbour at dawn", "an old orchard", "a town square",
    "a travelling theatre", "a school garden", "a rainy afternoon", "a long bus journey", "a family dinner",
    "a clock maker", "a river ferry", "a snowed-in valley", "a street musician", "a botanical garden", "a summer camp",
    "a stone bridge", "a bicycle workshop", "a fishing village", "an island in autumn", "a letter from abroad",
    "a lost umbrella", "a village fair", "a desert caravan", "a tea house", "a carpenter's bench", "a quiet museum",
    "a flock of geese", "a harvest festival", "a bookshop cat", "a windmill", "a winter morning", "a rooftop garden",
    "a canal boat", "a mountain trail", "a pottery class", "a night train",
)  # fmt: skip
REQUESTS = (
    "Write a short description of {topic}.",
    "Describe {topic} to someone who has never seen anything like it.",
    "Write a diary entry about {topic}.",
    "Tell a short story that takes place around {topic}.",
    "Write a note to a friend about {topic}.",
    "Explain why people might remember {topic}.",
    "Write a paragraph for a travel guide about {topic}.",
    "Describe the sounds and smells of {topic}.",
    "Write a short speech about {topic}.",
    "Give a lively account of {topic}.",
    "Write the opening of a novel set around {topic}.",
    "Write a short magazine piece about {topic}.",
    "Describe what could go wrong around {topic}.",
    "Write about {topic} from the point of view of a child.",
    "Write about {topic} as a historian would.",
    "Invent a legend about {topic}.",
    "Write an advertisement for {topic}.",
    "Describe how {topic} might look in a hundred years.",
    "Write a radio report about {topic}.",
    "Compare {topic} with something that you know well.",
    "Give some thoughtful advice that has to do with {topic}.",
    "Write a postcard about {topic}.",
    "Tell what a painter would notice about {topic}.",
    "Write a short lesson for schoolchildren about {topic}.",
)
"""With a topic each, a thousand requests; with the words that the answer has to mention, no two alike."""

ENDINGS = (
    "That is all for today.", "Thank you for reading.", "More will follow soon.", "This is where it ends.",
    "What do you think?", "Until we meet again.",
)  # fmt: skip

JAPANESE = _split("猫 水 山 空 花 森 海 雪 町 本 駅 春 夏 秋 冬 さくら みかん ねこ いぬ とり カメラ テレビ")

FOREIGN = {
    "es": (
        "{0} vive en una casa pequeña cerca del río. Por la mañana {1} abre la ventana y mira las montañas. "
        "Después del desayuno todos caminan juntos hacia el mercado. Allí {2} compra pan fresco, queso y unas "
        "manzanas muy dulces. Cuando llega la noche se cuentan historias antiguas junto al fuego. Nadie quiere que "
        "termine el verano, porque los días son largos y la gente está contenta."
    ),
    "fr": (
        "{0} habite dans une petite maison près de la rivière. Le matin {1} ouvre la fenêtre et regarde les "
        "montagnes. Après le petit déjeuner ils marchent ensemble vers le marché. Là {2} achète du pain frais, du "
        "fromage et des pommes bien sucrées. Quand la nuit arrive on raconte de vieilles histoires auprès du feu. "
        "Personne ne veut que cet été finisse, car les jours sont longs et les gens sont heureux."
    ),
    "de": (
        "{0} wohnt in einem kleinen Haus nahe am Fluss. Am Morgen öffnet {1} das Fenster und schaut auf die Berge. "
        "Nach dem Frühstück gehen alle zusammen zum Markt. Dort kauft {2} frisches Brot, Käse und einige sehr süße "
        "Äpfel. Wenn die Nacht kommt, erzählt man sich alte Geschichten am Feuer. Niemand möchte, dass der Sommer "
        "endet, denn die Tage sind lang und die Leute sind fröhlich."
    ),
    "it": (
        "{0} abita in una piccola casa vicino al fiume. La mattina {1} apre la finestra e guarda le montagne. Dopo "
        "la colazione tutti camminano insieme verso il mercato. Lì {2} compra pane fresco, formaggio e alcune mele "
        "molto dolci. Quando arriva la notte si raccontano vecchie storie accanto al fuoco. Nessuno vuole che "
        "finisca l'estate, perché i giorni sono lunghi e la gente è contenta."
    ),
    "pt": (
        "{0} mora em uma pequena casa perto do rio. De manhã {1} abre a janela e olha para as montanhas. Depois do "
        "café todos caminham juntos até o mercado. Lá {2} compra pão fresco, queijo e algumas maçãs muito doces. "
        "Quando chega a noite contam-se velhas histórias ao lado do fogo. Ninguém quer que o verão termine, porque "
        "os dias são longos e as pessoas estão contentes."
    ),
    "fi": (
        "{0} asuu pienessä talossa lähellä jokea. Aamulla {1} avaa ikkunan ja katselee vuoria. Aamiaisen jälkeen "
        "kaikki kävelevät yhdessä torille. Siellä {2} ostaa tuoretta leipää, juustoa ja makeita omenoita. Kun yö "
        "saapuu, kerrotaan vanhoja tarinoita nuotion äärellä. Kukaan ei halua kesän loppuvan, sillä päivät ovat "
        "pitkiä ja ihmiset ovat iloisia."
    ),
}
"""An answer of some fifty words in each language that is asked for, with places for three names."""

PALINDROMES = _split(
    """
    alula civic deified deled detartrated devoved evitative hallah kayak kinnikinnik level madam malayalam minim murdrum
    racecar radar redder redivider refer releveler repaper reviver rotator rotavator rotor sagas semes sexes shahs solos
    stats stets tenet terret
    """
)
"""Of five letters and more."""
