"""Word lists of the embedded suite: invented places, common first names, things and jobs."""

PEOPLE = (
    "Ada Alma Anton Aria Astrid Bela Bruno Carla Cato Celia Clara Dario Dora Edgar Elena Elias Emil Esther "
    "Fabio Felix Fiona Flora Franz Gerda Gino Greta Hanna Hector Hugo Ida Igor Ines Iris Ivan Jana Jonas Julia "
    "Karl Kira Lars Laura Lena Leo Lia Linus Lola Luca Magda Marco Mara Mila Mina Nadia Nils Nina Noah Nora "
    "Olaf Olga Oscar Paula Petra Pia Ralf Rita Rosa Ruth Samir Sara Selma Simon Sofia Stella Sven Tamara Theo "
    "Tilda Timo Tom Uma Vera Viktor Wanda Yara Yusuf Zeno Zora "
).split()
CITIES = (
    "Almera Bastel Belvar Borden Brisk Calden Corvo Dalmar Dornel Elmar Estra Fenwick Galden Gorim Halven "
    "Harlow Iskra Jorvik Kaldor Kelmar Lindal Lorne Marsk Medra Nordal Norwin Oslen Palmar Parnel Quill Ravena "
    "Rossen Salden Selva Tarn Torvel Umbra Valden Vesper Wexel Yarrow Zerm "
).split()
COUNTRIES = "Vastia Norland Carpia Sundra Merovia Aldania Tessaly Orland Brevia Kestria Lumara Pellia".split()
JOBS = (
    "baker doctor teacher painter lawyer farmer pilot singer writer judge nurse tailor sailor miner chef actor "
    "gardener potter banker builder "
).split()
FIRMS = (
    "Acron Bexel Cordia Deltor Envia Fortis Gelmar Helvex Inova Jantar Kortex Lumex Mavrik Nextar Orbix Pentor "
    "Quantor Rivex Solaris Tekton Ultima Vantor Wavex Zenor "
).split()
THINGS = (
    "apples pens books coins stamps cards shells marbles cookies eggs plums stones beads tickets flowers "
    "candles pencils balls buttons oranges "
).split()
BOXES = "box bag basket crate jar packet".split()
PLURAL = {"box": "boxes", "bag": "bags", "basket": "baskets", "crate": "crates", "jar": "jars", "packet": "packets"}
FUNCTIONS = (
    "tally crunch fold gather measure collect reduce pick scan weigh shape filter_up combine convert digest "
    "extract handle inspect merge process resolve select stack trim wrap "
).split()
STRINGS = "banana castle orange window garden silver pepper letter summer rabbit butter planet cotton dinner".split()
