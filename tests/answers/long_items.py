"""Right and wrong longer answers in English and German, the last four items not looked at when the score was made."""

# (question, reference, right answers, wrong answers)
ITEMS: list[tuple[str, str, list[str], list[str]]] = [
    (
        "How do I reset my password?",
        "Click 'Forgot password' on the login page and follow the link in the email we send you.",
        [
            "On the sign-in page, choose 'Forgot password'. You will get an email with a link; open it and set a new one.",
            "Use the 'forgot password' link on the login screen, then follow the instructions in the mail.",
        ],
        [
            "You cannot reset your password yourself.",
            "Call the hotline between nine and five and have your customer number ready.",
            "You asked how to reset your password. That is a good question, and passwords are important.",
            "Passwords must have at least twelve characters, one digit and one symbol.",
        ],
    ),
    (
        "When is my invoice due?",
        "Invoices are due within 30 days of the date of issue.",
        [
            "You have 30 days from the invoice date to pay.",
            "The payment term is 30 days after the invoice has been issued.",
        ],
        [
            "Invoices are due within 14 days of the date of issue.",
            "Your invoice is sent by email at the end of the month.",
            "Invoices are not due within 30 days of the date of issue.",
            "You can pay invoices by card or bank transfer.",
        ],
    ),
    (
        "Why is the sky blue?",
        "Air molecules scatter short blue wavelengths of sunlight more strongly than long red ones, so blue light reaches us from all directions.",
        [
            "Sunlight is scattered by molecules of the air, and blue light, with its shorter wavelength, is scattered much more than red. That is why we see blue everywhere in the sky.",
            "Because of Rayleigh scattering: the atmosphere's molecules scatter blue light far more than red light.",
        ],
        [
            "The sky is blue because it reflects the colour of the oceans.",
            "The sky looks blue during the day and red in the evening.",
            "Air molecules scatter long red wavelengths of sunlight more strongly than short blue ones.",
            "Blue is a colour that many people like.",
        ],
    ),
    (
        "Can I return opened software?",
        "No, opened software cannot be returned unless it is defective.",
        [
            "Software that has been opened can't be sent back, except if it is faulty.",
            "We do not take back opened software, unless it has a defect.",
        ],
        [
            "Yes, opened software can be returned within 30 days.",
            "Software can be returned, and opened boxes are accepted too.",
            "Please open the software package with care.",
            "Our return address is on the delivery note.",
        ],
    ),
    (
        "What does a compiler do?",
        "A compiler translates source code into machine code before the program is run.",
        [
            "It turns the source code of a program into machine code ahead of execution.",
            "A compiler converts source text to machine instructions before execution starts.",
        ],
        [
            "A compiler runs a program line by line while it reads it.",
            "A compiler is a person who collects texts.",
            "Source code is written by programmers in a programming language.",
            "A compiler deletes source code after the program is run.",
        ],
    ),
    (
        "How do vaccines work?",
        "Vaccines show the immune system a harmless part of a germ, so that it makes antibodies and memory cells which fight the real germ later.",
        [
            "A vaccine presents a harmless piece of the pathogen to your immune system. It then forms antibodies and memory cells, which protect you from the actual infection later on.",
            "They train the immune system with harmless parts of a germ so it produces antibodies and remembers how to fight it.",
        ],
        [
            "Vaccines kill the germs in the body directly, like antibiotics do.",
            "Vaccines are given with a needle into the arm, often in two doses.",
            "Vaccines weaken the immune system so that it does not make antibodies.",
            "Vaccination is recommended by many doctors.",
        ],
    ),
    (
        "How long does shipping to Canada take?",
        "Shipping to Canada takes five to seven working days.",
        [
            "A parcel to Canada arrives within five to seven business days.",
            "Expect five to seven working days for deliveries to Canada.",
        ],
        [
            "Shipping to Canada takes two to three weeks.",
            "Shipping to Canada costs twelve dollars.",
            "We do not ship to Canada.",
            "Shipping to Mexico is not offered at the moment.",
        ],
    ),
    (
        "What should I do in case of a fire?",
        "Leave the building at once by the stairs, do not use the lifts, and meet at the car park.",
        [
            "Get out immediately using the stairs, never the elevators, and gather at the car park.",
            "Use the stairs to leave the building right away. Don't take the lift. The meeting point is the car park.",
        ],
        [
            "Stay in the building and use the lifts to get to the roof.",
            "Fires are dangerous and can be caused by cables.",
            "Leave the building at once by the lifts and meet at the car park.",
            "The car park has room for two hundred cars.",
        ],
    ),
    (
        "Wie setze ich mein Passwort zurück?",
        "Klicken Sie auf der Anmeldeseite auf 'Passwort vergessen' und folgen Sie dem Link in der E-Mail.",
        [
            "Auf der Anmeldeseite gibt es 'Passwort vergessen'. Danach erhalten Sie eine E-Mail mit einem Link, dem Sie folgen.",
            "Wählen Sie beim Anmelden 'Passwort vergessen' und öffnen Sie den Link aus der E-Mail.",
        ],
        [
            "Sie können Ihr Passwort nicht selbst zurücksetzen.",
            "Rufen Sie die Hotline zwischen neun und fünf Uhr an.",
            "Sie möchten Ihr Passwort zurücksetzen. Das ist eine gute Frage.",
            "Passwörter müssen mindestens zwölf Zeichen haben.",
        ],
    ),
    (
        "Wann ist meine Rechnung fällig?",
        "Rechnungen sind innerhalb von 30 Tagen nach Ausstellung fällig.",
        [
            "Sie haben nach Ausstellung der Rechnung 30 Tage Zeit zu zahlen.",
            "Das Zahlungsziel beträgt 30 Tage ab Rechnungsdatum.",
        ],
        [
            "Rechnungen sind innerhalb von 14 Tagen nach Ausstellung fällig.",
            "Rechnungen werden am Monatsende per E-Mail verschickt.",
            "Rechnungen sind nicht innerhalb von 30 Tagen nach Ausstellung fällig.",
            "Sie können Rechnungen per Karte oder Überweisung zahlen.",
        ],
    ),
    (
        "Warum ist der Himmel blau?",
        "Luftmoleküle streuen das kurzwellige blaue Licht der Sonne stärker als das langwellige rote, sodass blaues Licht aus allen Richtungen kommt.",
        [
            "Das Sonnenlicht wird an den Molekülen der Luft gestreut, und zwar das blaue Licht mit kurzer Wellenlänge viel stärker als das rote. Deshalb kommt Blau aus allen Richtungen.",
            "Weil die Moleküle der Luft blaues, kurzwelliges Licht stärker streuen als rotes.",
        ],
        [
            "Der Himmel ist blau, weil er die Farbe der Meere spiegelt.",
            "Der Himmel ist am Tag blau und am Abend rot.",
            "Blau ist eine Farbe, die viele Menschen mögen.",
        ],
    ),
    (
        "Kann ich geöffnete Software zurückgeben?",
        "Nein, geöffnete Software kann nicht zurückgegeben werden, außer sie ist defekt.",
        [
            "Software, die geöffnet wurde, nehmen wir nicht zurück, es sei denn, sie ist defekt.",
            "Geöffnete Software kann man nicht zurückgeben, außer bei einem Defekt.",
        ],
        [
            "Ja, geöffnete Software kann innerhalb von 30 Tagen zurückgegeben werden.",
            "Bitte öffnen Sie die Verpackung der Software vorsichtig.",
            "Unsere Adresse für Rücksendungen steht auf dem Lieferschein.",
        ],
    ),
    (
        "Wie lange dauert der Versand nach Österreich?",
        "Der Versand nach Österreich dauert drei bis fünf Werktage.",
        [
            "Nach Österreich sind Pakete drei bis fünf Werktage unterwegs.",
            "Rechnen Sie für Lieferungen nach Österreich mit drei bis fünf Werktagen.",
        ],
        [
            "Der Versand nach Österreich dauert zwei bis drei Wochen.",
            "Der Versand nach Österreich kostet zwölf Euro.",
            "Nach Österreich versenden wir nicht.",
            "Der Versand in die Schweiz ist zurzeit nicht möglich.",
        ],
    ),
    (
        "Was macht ein Compiler?",
        "Ein Compiler übersetzt Quelltext in Maschinencode, bevor das Programm läuft.",
        [
            "Er übersetzt vor der Ausführung den Quelltext eines Programms in Maschinencode.",
            "Ein Compiler wandelt Quelltext vor dem Start in Maschinencode um.",
        ],
        [
            "Ein Compiler führt ein Programm Zeile für Zeile aus, während er es liest.",
            "Quelltext wird von Programmierern geschrieben.",
            "Ein Compiler löscht den Quelltext, nachdem das Programm gelaufen ist.",
        ],
    ),
    (
        "Was soll ich bei einem Feuer tun?",
        "Verlassen Sie das Gebäude sofort über die Treppe, benutzen Sie nicht den Aufzug, und sammeln Sie sich am Parkplatz.",
        [
            "Gehen Sie sofort über die Treppe aus dem Gebäude, nie mit dem Aufzug. Treffpunkt ist der Parkplatz.",
            "Das Gebäude ist sofort über die Treppe zu verlassen; Aufzüge sind verboten, Sammelplatz ist der Parkplatz.",
        ],
        [
            "Bleiben Sie im Gebäude und fahren Sie mit dem Aufzug auf das Dach.",
            "Feuer sind gefährlich und können durch Kabel entstehen.",
            "Der Parkplatz hat Platz für zweihundert Autos.",
        ],
    ),
    (
        "How do I cancel my subscription?",
        "Open the account settings, choose 'Subscription' and press 'Cancel'; it ends with the paid month.",
        [
            "Go to your account settings. Under 'Subscription' press 'Cancel', and it will stop at the end of the month you have paid for.",
            "Sure! You can do that yourself: in the account settings, pick Subscription and then Cancel. The subscription then runs out with the month that is paid.",
        ],
        [
            "Subscriptions cost nine dollars a month and renew automatically.",
            "Write a letter to our office to cancel.",
            "You would like to cancel your subscription. I am sorry to hear that.",
            "I do not know.",
        ],
    ),
    (
        "What causes tides?",
        "Tides are caused by the gravity of the moon and, to a lesser degree, the sun, pulling on the oceans.",
        [
            "The moon's gravitational pull on the oceans causes the tides; the sun contributes a smaller part.",
            "Mainly the moon: its gravity pulls at the water of the oceans, and the sun helps a little.",
        ],
        [
            "Tides are caused by winds that push water to the coast.",
            "Tides occur twice a day on most coasts.",
            "The moon orbits the earth in 27 days.",
            "Paris",
        ],
    ),
    (
        "Wie kündige ich mein Abonnement?",
        "Öffnen Sie die Kontoeinstellungen, wählen Sie 'Abonnement' und drücken Sie 'Kündigen'; es endet mit dem bezahlten Monat.",
        [
            "Gehen Sie in die Kontoeinstellungen. Unter 'Abonnement' drücken Sie 'Kündigen', dann endet es zum Ende des bezahlten Monats.",
            "Gern: In den Einstellungen Ihres Kontos finden Sie 'Abonnement' und dort 'Kündigen'. Das Abo läuft dann mit dem bezahlten Monat aus.",
        ],
        [
            "Abonnements kosten neun Euro im Monat und verlängern sich von selbst.",
            "Schreiben Sie einen Brief an unser Büro.",
            "Sie möchten Ihr Abonnement kündigen. Das tut uns leid.",
            "Das weiß ich nicht.",
        ],
    ),
    (
        "Warum rosten Autos?",
        "Eisen in der Karosserie reagiert mit Sauerstoff und Wasser zu Rost, Salz im Winter beschleunigt das.",
        [
            "Das Eisen der Karosserie verbindet sich mit Wasser und Sauerstoff, so entsteht Rost. Streusalz macht es im Winter schneller.",
            "Rost entsteht, wenn Eisen mit Sauerstoff und Wasser reagiert; im Winter beschleunigt Salz den Vorgang.",
        ],
        [
            "Autos rosten, weil sie zu oft gewaschen werden.",
            "Rost ist braun und lässt sich mit Schleifpapier entfernen.",
            "Autos haben eine Karosserie aus Blech.",
        ],
    ),
]
