"""What posts are made of in each language: words of subjects, words of all subjects, sentences. Plain data.

English has the words of the small world. The other languages have fewer, and share few of them with it or each other.
"""

from typing import Final

from nearline.demo.subjects import COMMON, SUBJECTS

_SPANISH: Final = """
gardening: jardín semilla abono maceta riego césped rosal poda tierra huerto tulipán invernadero
cooking: cocina guiso sartén aceite cebolla receta caldo especia hervir cuchillo salsa fogón
baking: masa levadura harina horno corteza migas bizcocho hojaldre amasar centeno azúcar molde
cycling: bicicleta pedal cadena casco sillín puerto manillar llanta pelotón grava cadencia freno
running: maratón zancada zapatilla trote rodilla cuesta cronómetro sendero dorsal relevo ritmo meta
chess: ajedrez alfil peón enroque jaque torre apertura tablero gambito caballo dama tablas
tennis: raqueta saque volea revés pista bola arbitraje globo dejada muñequera cordaje cancha
football: fútbol portero delantero penalti córner tarjeta balón extremo zaga regate hinchada césped
sailing: vela mástil quilla timón regata ancla babor estribor cabo puerto foque marea
surfing: surf ola neopreno arrecife tubo tabla remada marejada orilla espuma rompiente quillas
astronomy: telescopio estrella galaxia órbita planeta cometa eclipse nebulosa cráter púlsar cielo luna
photography: fotografía objetivo obturador diafragma trípode enfoque retrato encuadre carrete revelado sombra luz
painting: lienzo pincel óleo pigmento paleta acuarela boceto caballete barniz mural fresco galería
guitar: guitarra acorde traste cuerda púa cejilla afinación rasgueo puente riff pastilla luthier
orchestra: orquesta violín batuta partitura oboe timbal ensayo sinfonía violonchelo trompa cuarteto solista
programming: programa función bucle variable compilador prueba rama puntero clase biblioteca fallo parche
databases: consulta índice réplica clave transacción esquema tupla columna volcado partición cerrojo almacén
networking: enrutador paquete latencia cortafuegos cable fibra túnel conmutador subred puerto señal tráfico
learning: modelo entrenamiento gradiente neurona capa época vector pérdida etiqueta muestreo tensor sesgo
robotics: robot pinza sensor motor servo dron par trayectoria batería chasis junta codificador
electronics: circuito resistencia condensador voltaje corriente soldadura diodo placa bobina fusible relé transistor
startups: emprendedor inversor ronda producto mercado cliente ingresos lanzamiento capital mentor pivote socio
investing: bolsa bono dividendo cartera rendimiento acción fondo interés riesgo inflación activo prima
law: juez tribunal contrato cláusula demanda sentencia abogado jurado prueba testigo recurso estatuto
medicine: paciente dosis clínica síntoma vacuna cirujano diagnóstico sangre receta fiebre pulso tejido
biology: célula proteína gen enzima especie bacteria hongo fósil hábitat membrana virus plancton
climate: clima carbono sequía glaciar océano inundación emisión selva metano tormenta eólica permafrost
birding: ave nido pluma halcón búho garza migración prismáticos pinzón alondra bandada pico
architecture: fachada viga columna ladrillo arco cimiento cúpula hormigón plano escalera patio tejado
travel: viaje vuelo pasaporte maleta hostal frontera museo ferri templo mochila reserva aduana
film: película guion cámara rodaje actriz montaje estreno secuela plano taquilla butaca reparto
teaching: clase alumno examen pizarra deberes temario aula maestro lectura cuaderno beca recreo
"""

_GERMAN: Final = """
gardening: Garten Samen Kompost Beet Gießkanne Rasen Rose Schnitt Erde Gewächshaus Zwiebelblume Hecke
cooking: Küche Topf Pfanne Öl Zwiebel Rezept Brühe Gewürz Soße Messer Schmorbraten Herd
baking: Teig Hefe Mehl Ofen Kruste Krume Sauerteig Blätterteig kneten Roggen Zucker Backform
cycling: Fahrrad Pedale Kette Helm Sattel Passfahrt Lenker Felge Ausreißer Schotter Trittfrequenz Bremse
running: Marathon Schritt Laufschuh Trab Knie Steigung Stoppuhr Waldweg Startnummer Staffel Lauftempo Ziel
chess: Schach Läufer Bauer Rochade Matt Turm Eröffnung Brett Gambitzug Springer Dame Remis
tennis: Schläger Aufschlag Flugball Rückhand Sandplatz Satzball Schiedsrichter Lob Besaitung Netzkante Vorhand Turnier
football: Fußball Torwart Stürmer Elfmeter Eckball Karte Ballbesitz Flügel Abwehr Dribbling Kurve Abseits
sailing: Segel Mast Kiel Ruder Regattafeld Anker Backbord Steuerbord Leine Hafen Fock Gezeiten
surfing: Surfbrett Welle Neopren Riff Röhre Paddeln Dünung Ufer Gischt Brandung Finne Take-off
astronomy: Fernrohr Stern Galaxie Umlaufbahn Planet Komet Finsternis Nebel Krater Pulsar Himmel Mond
photography: Fotografie Objektiv Verschluss Blende Stativ Schärfe Porträt Ausschnitt Filmrolle Entwickler Schatten Licht
painting: Leinwand Pinsel Ölfarbe Pigment Palette Aquarell Skizze Staffelei Firnis Wandbild Fresko Galerie
guitar: Gitarre Akkord Bund Saite Plektrum Kapodaster Stimmung Anschlag Steg Riff Tonabnehmer Gitarrenbauer
orchestra: Orchester Geige Taktstock Partitur Oboe Pauke Probe Sinfonie Cello Waldhorn Quartett Solistin
programming: Programm Funktion Schleife Variable Übersetzer Testlauf Zweig Zeiger Klasse Bibliothek Fehler Flicken
databases: Abfrage Index Replikat Schlüssel Transaktion Schema Tupel Spalte Sicherung Partition Sperre Speicher
networking: Router Paket Latenz Brandmauer Kabel Glasfaser Tunnel Switch Teilnetz Anschluss Signal Datenverkehr
learning: Modell Training Gradient Neuron Schicht Epoche Vektor Verlust Etikett Stichprobe Tensor Verzerrung
robotics: Roboter Greifer Sensor Motor Servo Drohne Drehmoment Bahnplanung Akku Fahrgestell Gelenk Drehgeber
electronics: Schaltkreis Widerstand Kondensator Volt Strom Lötkolben Diode Platine Spule Zündung Relais Transistor
startups: Gründerin Investor Geldrunde Produkt Markt Kundin Umsatz Einführung Kapital Mentorin Kurswechsel Beteiligung
investing: Börse Anleihe Dividende Depot Rendite Aktie Fonds Zins Risiko Inflation Anlage Prämie
law: Richterin Gericht Vertrag Klausel Klage Urteil Anwalt Geschworene Beweis Zeugin Berufung Gesetz
medicine: Patient Dosis Klinik Symptom Impfung Chirurgin Diagnose Blut Rezeptblock Fieber Puls Gewebe
biology: Zelle Protein Gen Enzym Art Bakterie Pilz Fossil Lebensraum Membran Virus Plankton
climate: Klima Kohlenstoff Dürre Gletscher Ozean Hochwasser Ausstoß Regenwald Methan Sturm Windkraft Dauerfrost
birding: Vogel Nest Feder Habicht Eule Reiher Vogelzug Fernglas Fink Lerche Schwarm Schnabel
architecture: Fassade Balken Säule Ziegel Bogen Fundament Kuppel Beton Grundriss Treppe Innenhof Dach
travel: Reise Flug Reisepass Koffer Herberge Grenze Museum Fähre Tempel Rucksack Buchung Zoll
film: Kinofilm Drehbuch Kamera Dreh Schauspielerin Schnittraum Premiere Fortsetzung Szene Kinokasse Sessel Besetzung
teaching: Unterricht Schülerin Prüfung Tafel Hausaufgabe Lehrplan Klassenzimmer Lehrer Lesestoff Heft Stipendium Pause
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _subjects(text: str) -> dict[str, tuple[str, ...]]:
    lines = (line.partition(": ") for line in text.strip().splitlines())
    return {subject: tuple(words.split()) for subject, _, words in lines}


SUBJECT_WORDS: Final = {"en": SUBJECTS, "es": _subjects(_SPANISH), "de": _subjects(_GERMAN)}

COMMON_WORDS: Final = {
    "en": COMMON,
    "es": _words("""
        tiempo año día semana mañana tarde gente amigo cosa manera trabajo parte caso punto grupo problema idea mano
        lado lista cambio razón resultado ejemplo historia momento nota detalle error costumbre paso regla consejo
        esfuerzo sorpresa lección temporada papel libro proyecto precio valor calidad"""),
    "de": _words("""
        Zeit Jahr Tag Woche Morgen Abend Leute Freund Sache Weise Arbeit Teil Fall Punkt Gruppe Problem Idee Hand Seite
        Liste Wechsel Grund Ergebnis Beispiel Geschichte Augenblick Notiz Einzelheit Irrtum Gewohnheit Regel Rat Mühe
        Überraschung Lektion Saison Papier Buch Vorhaben Preis Wert Güte"""),
}  # fmt: skip

SENTENCES: Final = {
    "en": (
        "I finally understand why the {} matters more than the {}, {} and {}.",
        "Spent the weekend on {} and {}, and the {} still needs {}.",
        "Three things I learned about {}: mind the {}, watch the {}, and never rush the {}.",
        "We compared {} with {} for a month, then {} and {} won.",
        "After a year of {} I would start with {} and leave {} and {} for later.",
        "If you only fix one thing, let it be the {}; the {}, the {} and the {} follow.",
        "Wrote down how {}, {}, {} and {} fit together.",
        "My {} failed today, so I went back to {}, checked the {} and asked about {}.",
    ),
    "es": (
        "Por fin entiendo por qué {} importa más que {}, {} y {}.",
        "Pasé el fin de semana con {} y {}, y todavía falta {} sin {}.",
        "Tres cosas que aprendí sobre {}: cuidar {}, mirar {} y no correr con {}.",
        "Comparamos {} con {} durante un mes, y luego ganaron {} y {}.",
        "Después de un año de {} empezaría por {} y dejaría {} y {} para más tarde.",
        "Hoy falló {}, así que volví a {}, revisé {} y pregunté por {}.",
    ),
    "de": (
        "Endlich verstehe ich, warum {} wichtiger ist als {}, {} und {}.",
        "Das Wochenende mit {} und {} verbracht, nur {} braucht noch {}.",
        "Drei Dinge über {} gelernt: {} beachten, {} ansehen, {} nie überstürzen.",
        "Wir haben {} einen Monat lang mit {} verglichen, dann gewannen {} und {}.",
        "Nach einem Jahr {} würde ich mit {} beginnen und {} und {} für später lassen.",
        "Heute versagte {}, also zurück zu {}, dann {} geprüft und nach {} gefragt.",
    ),
}
"""Each has four words."""

TITLES: Final = {
    "en": "{}, and what it has to do with {}",
    "es": "{} y su relación con {}",
    "de": "{} und was {} damit zu tun hat",
}
HEADLINES: Final = {
    "en": "I write about {}, {} and {}",
    "es": "Escribo sobre {}, {} y {}",
    "de": "Ich schreibe über {}, {} und {}",
}
