"""Words that may stand behind a number without changing it: what people count, and small words between.

Made of the words behind numbers in GSM8K's questions and answers, read one by one. A word that changes the number
(`halves`, `quarters`, `dozens`, `pairs`, `times ten`, `below`, `less`, `inverse`) is not here, and what is not here is
not dropped.
"""

_WORDS = frozenset(
    """
    accessories accidents acorns actors acts additional administrators ads adults afternoon airplanes albums
    alligators almonds altogether amulets animals annually answers antacids antlers ants apartments apiece appetizers
    apples applications appointments apps aprons aquariums are armchairs arms arrangements artichokes articles
    artifacts artworks asparagus at athletes audiobooks aunts available avocados awards away babies baby backpacks
    bacteria badges bagels baggies bags baguettes bales balloons balls bananas bandages bands barrels barrettes bars
    baseballs basketballs baskets batches bathrooms baths bats batter batteries be beads beakers beams beans bearings
    bears beats beavers bedbugs bedrooms beds beef beer bees beetles beignets belts benches berets berries bicycles
    bids big bikes billboards bills binders bins biographies birches birdhouses birds biscuits bites black blackbirds
    blankets blisters blocks blondies blouses blue blueberries boards boas boats bollards bolts bones bonnets
    bookcases bookmarks books bottlecaps bottles bought bouquets bowlfuls bowls boxcars boxes boxwoods boys bracelets
    braids branches bread breads breakfasts breaths bricks bridesmaids brochures broomsticks brothers brownies browns
    brunettes bubbles buckets bugs builders buildings bulbs bulldogs bunches bundles bunnies buns burgers burritos
    burrs buses bushels bushes butter butterfingers butterflies buttons buyers cabinets cages cakes calls calorie
    camels cameras campers candies candles candy canes cannolis cans cantaloupes canvases caps capsules caramels
    cardinals cards carnations carpenters carpet carpets carriages carrots cars cartons carts cases cash castles
    categories caterpillars cats cattle cavities cds ceilings cells celsius cement centers centimeters cereal chains
    chairs champions changes channels chaperones chapters characters chargers charges charts cheerleaders cheese
    cheesecakes cheeses cheetahs chefs cherries chests chickens chicks chihuahuas child children chimichangas
    chipmunks chips chives chocolate chocolates choices chords chores circles cirrus citations cities citizens
    cityfolk claims clamps clarinets classes classmates classrooms claws cleaners clerks clients clippings clips
    cloaks cloth clothes clotheslines clothing clouds clovers cloves clowns clusters coaches coals coats cobras cobs
    coconuts codes coffee coffees coins cold collars collectors colleges collies colors columns combinations combined
    comets comics committees complaints computers concrete condiments cones consonants contacts containers contestants
    contracts conversions convertibles cookies coolers coons copies corn corns cotton cougars coughs counselors
    counters countries counts coupons courses cousins covers cows crabs crackers crafts cranberries cranes craters
    crates crayons cream creams credits crickets croissants crops crosswalks croutons crows cubes cucumbers cupcakes
    cups curlers curries customers cuttlebones cycles cylinders dahlias daily daisies dancers dandelions daughters
    days decorations deep deers delegates delicious deliveries demerits desks desserts devices diagonals diapers
    diaries different digits dimes dinners dirt discounts dishes dislikes distinct divisors doctors dogs dollar dolls
    dolphins dominoes donations donuts doors doses dough doughnuts doughs doves downloads dragons drawings
    dreadnoughts dreams dresses drinks driveways dromedaries drops drummers drums dryers ducklings ducks dumplings
    dvds dwarves each earned earrings ears eaten edges eels eggplants eggs elementary elements elephants elves emails
    employees empty emus enclosures enemies engines entrees envelopes episodes equipment erasers espressos essays
    evening every exams exercises expenses express extras eyes fabric faces factors fahrenheit fairies families family
    farmhands farms farthings feathers feed feedings fees females fences ferns fields fights figures figurines files
    filets fillets film finds fingers firecrackers firefighters fireflies fires fireworks fish fishes flags flagstones
    flamingoes flamingos flashlights flats flavors fleas flies flights flips floats floors flour flowers flutes flyers
    folders foldings followers food footballs footprints for forks forms fowls foxes frames free fresh fridays friends
    fries frisbees frogs fronds fruits fuel full functions funds furniture galleries games garbage gasoline gates
    geckos geese gels gems gemstones geraniums gerbils gets gharials gifts gigabytes gigs gingerbreads giraffes girls
    glass glasses globes gnomes goals goats goes gold golden goldfishes graders grades graduates grain grains
    granddaughters grapes grass grasshoppers graves gray green grey groceries groups guests guides guitars gum
    gumballs guns guppies gusts had haircuts hairs halls hamburgers hamsters handbags handfuls hands handshakes
    hangers hares has hats have hawks hay he heads hearts heels helmets hens her hexagons high highlighters hikes
    hills his hits hives holes homeless homes homework honey honeydews hoodies hoops hoots hops horses horseshoes
    hospitals hot hotdogs households houses hrs humans hushpuppies huskies ice iguanas in inches income increments
    individuals infections ingredients inhabitants inning inpatients insects installments instances instructions
    instructors instruments integers interest intersections intervals invitations ipads iphones ipods is islands
    issues it items jackets jacks jaguars jars jays jeans jellybeans jerseys jewels jobs joggers jokes judges jugs
    juice juices jumpers jumps junebugs kangaroos kebabs kelvin kernels kettles keyboards keys kgs kids kilobytes
    kilos kindergarteners kindergartners kinds kisses kitchens kits kittens kiwis knives knobs knots koalas labradors
    ladders ladies ladybugs lamb lambs lamps land laps laptops large lasagnas lattes laundry lawnmowers lawns layers
    layoffs lbs leather leaves left legos legs leis lemonade lemons lens leopards lessons letters levels license licks
    lids lightbulbs lighters lights lilacs lilies limbs limes lines links lions little lizards llamas loads loaves
    loggers lollipops long lovers lunches lychees macarons macaroons machines made magazines maggots magnets magpies
    males mambas managers mangoes mangos marbles marigolds marines markers marks marshmallows mascots masks matchboxes
    matches matchsticks materials mats mbps meals meat meatballs medals medicine megabits megabytes melons members men
    meows messages metal metres mice microphones milk milkshakes milligrams milliliters millimeters millipedes minks
    minnows mirrors mistakes mittens models money monitors monkeys monsters monthly more morning motorcycles mountains
    moves movies mrs muffins mugs mushrooms music musicians nails napkins naps necklaces needed neighbors nephews
    nerds new newborns newspapers nickels nieces nights noodles noses notebooks notepads notes nougats novels nuggets
    numbers nurses nuts oats objects of offers offices oil old olives omelets omelettes on onions oranges orchards
    orchids orcs orders oreos outcomes outfits outsiders overall owls owners oxen oysters packages packets packs pages
    paid pails paint paintings palindromes pallets pamphlets pancakes pandas panels pans pansies pants papayas paper
    paperclips papers paragraphs parents parks parrots parsecs parsnips participants particles parties party
    passengers passes passwords pasta pastries patches paths patients patrons pauses paws paychecks payments peaches
    peanuts pearls pears pebbles pelicans pencils penguins pennies penny pens people pepper peppers percent periods
    permits permutations persons pesetas petals pets petunias pfennigs phones photographs photos phrases pianists
    pickles picks pictures pieces pies pigeons piglets pigs piles pillows pills pineapples pinecones pines pink pins
    pistachios pitches pits pixels pizzas planks plans planters plants plastic plates players playlists plays plugs
    plums pockets pods poets pointers points poles polishes pollywogs polygons polynomials pomegranates pomelos
    pomeranians poodles pools popcorn popsicles porcupines pork portraits possible postcards posters posts potatoes
    pots potted pouches precious presents pretzels primes printers prints problems produces professionals profit
    programs puffs pulls pumpkins pumps punches pupils puppies puppy pups purchases purple purses pushups puts puzzles
    pythons questions quiches quilts quiz quizzes rabbits racers races racquets radishes raisins raspberries rats
    razors readers reams recipes recoveries rectangles red redwoods reeboks regions relatives remaining rent repacks
    repairs reps requests residents restaurants revenue rhinestones rhinos ribbons rice riddles riders rides ridges
    rings ripe robes robins robots rocks rodents rods rolls roofs roommates rooms roosters rope ropes roses rotations
    rotten rottweilers routes rows rubies ruffles rugs rungs runners sacks sacs salads salary sales salmon salmons
    salt salutations same samples sand sandcastles sandwiches saplings sapphires sauces sausages saved savings
    scallops scarves scents schnauzers schoolers schools scientists scissors scoops scouts screens screws seagulls
    seahorses seashells seasons seats sections sectors seedlings seeds segments semesters seniors sentences sequences
    sequins servings sessions sets settings shares sharks she sheep sheets shells shelves shepherds shingles ships
    shirts shoeboxes shoes shop shoppers shorts shots showers shows shrimp siblings sides sightings signatures signs
    silk silver singers singles sips sisters sites situps skates skeins skeletons skips skirts skulls slacks slats
    sleep sleeves slices slurpees small smoothies smores snacks snails snakes snapdragons sneakers snickers snow
    snowballs snowflakes soaps socks soda sodas sofas soil sold soldiers solutions songs sonnets sons sounds soup
    sours souvenirs space spaces sparklers spears spent spheres spiders spiderwebs spokes spools spoonfuls spoons
    sports spots sprigs squads squares squats squirrels stables stacks stains stairs stakes stalks stamps stanzas
    staplers starbursts starfishes stars states stations statues status steaks steel stems steps stickers sticks
    stimulus stingrays stitches stones stools stoplights stores stories story strands strawberries strawberry straws
    streams streetlights streets string strings stripes strips strokes students stuffed stuffers stuffies subjects
    subs subscribers subscriptions subsections subsets substitutions suckers sugar suggestions suitcases suits sundaes
    sundays sunflowers supplements supplies surfers surveys suvs swallows swans sweaters sweatshirts sweets swordtails
    syrup systems tables tablespoons tablets tabs tacks tacos tadpoles tails tall tangerines tanks tape taps
    tarantulas tarts tasks tattoos tax taxes taxis tbs tea teachers teacups teams tears teas teaspoons teenagers teeth
    televisions tents terms terriers teslas tests tetras textbooks texts the their thermoses they things thorns thread
    throws thumbtacks tickets ticks ties tigers tiles times tins tiny tips tires tissues toads today toddlers toenails
    toes together toilet tokens tomatoes tomorrow tools toothbrushes toothpicks toppings tops total touchdowns
    tourists towels towers toys tractors trades trains trash trays treasures treats trees triangles tricks tricycles
    trikes trips trolls trombones trophies trouts truckloads trucks truffles trumpets tubes tubs tulips tumblers tuna
    tunas turkey turkeys turnips turns turtles tvs twigs types umbrellas uncles uncommons unicorns uniforms unique
    units unsold used utensils utilities vacations vaccines values vampires vans vases vegetables vehicles vents
    vertices vessels vests vets vibrations videos viewers vinegar vines violins visitors visits vlogs volleyballs
    volunteers voters votes vowels wages waiters walls walnuts wands was washers washes watches water watermelons ways
    weasels websites wedges weeds week weekdays weekends weekly were werewolves whales wheat wheels whiskers whistlers
    whiteboards whites whole wide widgets wights wigs wild will windows wine wings wipes wire wireless wishes wolves
    woman wombats women wood wool words work workdays workers works worksheets worms worth yarn yarns yearly yellow
    yesterday yogurts yolks young zebras zeros zits zombies zones
    """.split()  # noqa: SIM905
)

_NO_SINGULAR = frozenset(
    ("square", "cube", "short", "single", "prime", "time", "term", "factor", "zero", "figure", "end")
)
"""Words whose plural is counted, and whose singular behind a number is read otherwise (`5 prime`, `5 cube`)."""


def is_noun(word: str) -> bool:
    """Return whether a lower-case word, or its plural, is on the list."""
    if word in _WORDS:
        return True
    return len(word) > 2 and word not in _NO_SINGULAR and (f"{word}s" in _WORDS or f"{word}es" in _WORDS)
