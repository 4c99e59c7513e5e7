"""The demo's subjects and their words. Plain data.

The lists overlap on purpose: `seed` belongs to gardening, to startups and to machine learning, `court` to tennis and
to law. One word seldom tells the subject of a text; the words around it do.
"""

from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split()))


_VOCABULARIES: Final = {
    "gardening": """
        soil compost seed seedling tomato prune mulch perennial greenhouse root bulb harvest weed hedge bloom
        fertilizer lawn spade shoot orchard graft bed border frost slug nursery plant rose herb watering""",
    "cooking": """
        recipe oven simmer garlic sauce knife roast pan butter herb stock braise season skillet onion whisk broth
        kitchen spice chop boil marinade tomato reduction glaze chef plate dish stew zest""",
    "baking": """
        dough yeast oven flour crust proof knead sourdough starter butter sugar loaf crumb rye bake glaze roll pastry
        layer batter whisk scale bulk tin caramel hydration sponge icing almond score""",
    "cycling": """
        bike saddle pedal climb chain gear wheel tire cadence sprint peloton frame brake crank descent gravel watts
        ride helmet spoke cassette drivetrain tour stage breakaway interval puncture route fork bottle""",
    "running": """
        marathon stride tempo pace mile interval sneaker sprint race trail knee cadence lap taper hill split jog shoe
        track finish relay hamstring cooldown heart warmup distance podium ankle course bib""",
    "chess": """
        opening gambit endgame pawn bishop knight rook castle king check mate draw position sacrifice board blunder
        tempo clock grandmaster tactic fork pin file rank queen exchange defence rating match zugzwang""",
    "tennis": """
        serve volley court racket backhand rally net match set seed umpire clay baseline deuce tournament lob smash
        topspin draw string doubles ace grip grass tiebreak coach slice qualifier stroke break""",
    "football": """
        goal striker midfield pitch penalty corner league coach transfer defender offside keeper match cup pass draft
        tackle referee derby header stadium club squad relegation winger counter fixture press captain dribble""",
    "sailing": """
        sail mast keel wind tack jib hull rudder knot regatta harbor anchor deck crew spinnaker tide port starboard
        cleat boom bow line mooring buoy current drift galley chart helm wave""",
    "surfing": """
        wave board swell reef barrel paddle wetsuit fin tide break wax beach set longboard lineup drop shoulder leash
        surf current shore rip offshore carve cutback point duck foam takeoff wipeout""",
    "astronomy": """
        telescope star galaxy orbit nebula planet eclipse lens mirror comet cluster spectrum field light supernova
        moon mercury dust dwarf aperture sky parallax flare transit exposure crater ring survey pulsar redshift""",
    "photography": """
        lens exposure aperture shutter focus frame light portrait tripod film negative flash crop print landscape
        contrast filter darkroom bokeh sensor composition focal grain mirror studio burst shadow highlight negative
        develop""",
    "painting": """
        canvas brush oil pigment easel palette portrait landscape gallery frame watercolor sketch shadow stroke glaze
        layer varnish studio perspective composition impressionist exhibition primer turpentine medium hue fresco
        mural still wash""",
    "guitar": """
        chord string fret amp pedal riff bass pickup neck solo tuning strum capo scale bridge distortion bend tone nut
        acoustic pick blues jam harmonic luthier humbucker lick action body gain""",
    "orchestra": """
        violin score symphony conductor bow string cello movement rehearsal brass tempo concerto hall oboe percussion
        chamber pitch bass quartet opera overture ensemble note baton horn timpani sonata soloist podium harmony""",
    "programming": """
        function compiler python shell variable loop refactor bug stack type string thread class branch commit library
        exception test pointer kernel interface merge parser runtime syntax closure lint review release module""",
    "databases": """
        query index table join transaction replica shard schema key lock row log storage commit latency column cluster
        backup scan partition vacuum write cache isolation migration snapshot consistency buffer tree tuple""",
    "networking": """
        router packet switch latency protocol port bandwidth firewall address cable stack fiber gateway subnet tunnel
        hop jitter frame bridge socket handshake load balancer traffic certificate proxy mesh peer signal wireless""",
    "learning": """
        model training gradient network layer loss batch epoch embedding transformer kernel seed label token attention
        inference dataset regression neuron benchmark weight tensor overfitting cluster feature prompt scaling
        optimizer ablation sampling""",
    "robotics": """
        actuator sensor arm gripper joint torque servo motor controller lidar calibration encoder chassis feedback
        trajectory drone firmware camera localization planner wheel battery simulation payload gait kinematics signal
        loop mapping frame""",
    "electronics": """
        circuit resistor capacitor voltage current transistor solder board amplifier signal diode chip oscillator
        ground battery trace noise inductor prototype breadboard fuse wiring scope regulator relay filter coil pin
        layer bias""",
    "startups": """
        founder seed pitch investor runway equity round market product valuation pivot customer growth burn launch
        term traction board revenue churn bootstrap deck hiring exit demo accelerator angel moat scale cofounder""",
    "investing": """
        stock bond dividend portfolio yield market fund index equity hedge return volatility share bank interest
        broker valuation earnings asset inflation rate option growth margin split allocation risk premium treasury
        rebalance""",
    "law": """
        court judge contract clause appeal statute trial counsel verdict liability jury brief settlement bar motion
        precedent damages party evidence bond plaintiff term injunction hearing witness testimony plea filing ruling
        tort""",
    "medicine": """
        patient dose trial clinic symptom diagnosis vaccine surgeon ward therapy infection cell heart nurse antibiotic
        scan pressure chronic blood immune tissue pulse culture treatment screening fracture prescription relapse
        organ placebo""",
    "biology": """
        cell protein gene enzyme species membrane mutation culture root organism bacteria evolution habitat receptor
        tissue genome virus fungus plant ecology fossil chromosome population microscope neuron plankton
        photosynthesis predator strain taxonomy""",
    "climate": """
        carbon emission ocean warming glacier drought forest current wind solar temperature model ice policy flood
        carbonate heat sea methane storm adaptation grid renewable turbine reef offset permafrost coast monsoon
        mitigation""",
    "birding": """
        warbler nest migration feather binoculars hawk owl perch flock song crane wing beak plumage marsh raptor
        sparrow habitat species heron finch sighting blind field chick lens call egret thicket wader""",
    "architecture": """
        facade beam column brick arch floor plan concrete span bridge timber zoning elevation window roof renovation
        blueprint vault courtyard load foundation steel staircase insulation site render gallery dome hall cladding""",
    "travel": """
        flight hostel passport itinerary luggage visa train island market border museum ferry guide beach tour layover
        backpack street temple station souvenir hotel village booking coast transfer trek jetlag currency festival""",
    "film": """
        scene director camera script frame cut actor shot trailer lens dialogue score cast premiere editing studio
        plot sequel festival documentary take close screen reel cinema genre twist set prop ensemble""",
    "teaching": """
        lesson classroom student grade homework curriculum exam lecture essay syllabus feedback seminar tutor reading
        chalk pupil test assignment literacy rubric board course class score term principal workshop quiz campus
        scholarship""",
}

SUBJECTS: Final = {name: _words(words) for name, words in _VOCABULARIES.items()}

COMMON: Final = _words("""
    time year day week morning evening people friend thing way work part place case point group number question
    problem idea hand side kind list plan change reason result example story lot bit end start moment note detail
    mistake habit step rule choice advice experience effort surprise chance matter trouble trick lesson budget team
    season record paper book video talk photo weekend project goal limit price cost value quality balance community
    minute hour night summer winter spring beginner expert neighbor colleague tool setup corner table light line key
    field stage level speed space pressure support practice progress attention interest power room water""")

ADJECTIVES: Final = _words("""
    new good better best small big little long short late simple hard strange quiet slow quick clear
    first last second cheap careful rare common useful wrong right heavy local modern classic final full dry
    patient steady rough bright deep plain narrow sharp soft loud""")

SENTENCES: Final = (
    "I finally understand why the {a} matters more than the {b}.",
    "Spent the {adj} weekend on {a} and {b}, and the {c} still needs work.",
    "Does anyone have advice about {a}? My {b} keeps getting in the way of the {c}.",
    "Three things I learned about {a}: mind the {b}, watch the {c}, and never rush the {d}.",
    "The {adj} {a} was a surprise; the {b} and the {c} were not.",
    "A {adj} note on {a} and how it changes the {b}.",
    "We compared {a} with {b} for a month, and {c} won.",
    "Unpopular opinion: {a} is overrated, and a {adj} {b} does the same.",
    "After a {adj} year of {a} I would start with {b} and leave {c} for later.",
    "My {a} failed today, so I went back to {b} and checked the {c} again.",
    "If you only fix one thing, let it be the {a}. The {b} follows.",
    "What a {adj} day for {a}, with {b} to spare and {c} at the end.",
    "People ask me about {a} every week; the answer is nearly always {b}.",
    "Wrote down how {a}, {b} and {c} fit together, with a {adj} example.",
    "The difference between a {adj} {a} and a {adj} {b} is mostly {c}.",
    "Looking for a {adj} {a}. It should work with {b} and not ruin the {c}.",
    "Today I tried {a} without {b}.",
    "Tip of the day: check the {a} before the {b}, then the {c}.",
    "Here is the {a} we talked about, next to the {b} from last week.",
    "I was told that {a} needs {b}. It turns out that {c} is enough.",
)

HEADLINES: Final = (
    "{Subject} person, mostly {a} and {b}",
    "I write about {subject}: {a}, {b}, {c}",
    "{a}, {b} and the rest of {subject}",
    "Into {subject} since the first {a}",
    "{Subject} by day, {a} by night",
)
