"""Rewordings with or without a negation, in English and German; every other pair of items was held out
when the rules were made."""

# (question, reference, right answers, wrong answers)
ITEMS: list[tuple[str, str, list[str], list[str]]] = [
    (
        "Why does the VPN say error 812?",
        "Your certificate has expired. Open the settings and choose Renew now.",
        [
            "Your certificate is no longer valid. Open the settings and pick Renew now.",
            "The certificate ran out, so go to the settings and choose Renew now.",
        ],
        [
            "Your certificate has not expired. Open the settings and choose Renew now.",
            "Your certificate is valid. Leave the settings as they are.",
        ],
    ),
    (
        "Warum meldet das VPN den Fehler 812?",
        "Das Zertifikat ist abgelaufen. Öffnen Sie die Einstellungen und wählen Sie Erneuern.",
        [
            "Das Zertifikat ist nicht mehr gültig. Wählen Sie in den Einstellungen Erneuern.",
            "Ihr Zertifikat ist ungültig geworden; öffnen Sie die Einstellungen und wählen Sie dort Erneuern.",
        ],
        [
            "Das Zertifikat ist nicht abgelaufen. Öffnen Sie die Einstellungen und wählen Sie Erneuern.",
            "Öffnen Sie nicht die Einstellungen und wählen Sie nicht Erneuern, das Zertifikat ist gültig.",
        ],
    ),
    (
        "How long does the dough have to rest?",
        "Let the dough rest for an hour in the fridge. Cover it with a cloth so that it does not dry out.",
        [
            "It rests for an hour in the fridge, covered with a cloth to keep it from drying.",
            "Put the dough in the fridge for an hour and lay a cloth over it, otherwise it dries out.",
        ],
        [
            "Do not let the dough rest in the fridge, and do not cover it with a cloth.",
            "Let the dough stand in the sun for a day until it is dry.",
        ],
    ),
    (
        "Womit dünge ich Lavendel?",
        "Geben Sie reifen Kompost. Arbeiten Sie ihn flach ein, damit die Wurzeln nicht verletzt werden.",
        [
            "Nehmen Sie reifen Kompost und arbeiten Sie ihn flach ein, um die Wurzeln zu schonen.",
            "Reifer Kompost ist gut. Flach einarbeiten, sonst leiden die Wurzeln.",
        ],
        [
            "Geben Sie keinen Kompost, er schadet den Wurzeln.",
            "Arbeiten Sie den Kompost nicht flach ein, sondern graben Sie ihn tief unter die Wurzeln.",
        ],
    ),
    (
        "May I cancel after the trip has started?",
        "No, a booking cannot be cancelled once the trip has started.",
        [
            "Once the trip has begun, cancelling the booking is impossible.",
            "After the start of the trip a booking can no longer be cancelled.",
        ],
        [
            "Yes, a booking can be cancelled once the trip has started.",
            "A booking can still be cancelled after the trip has started.",
        ],
    ),
    (
        "Kann ich nach Reisebeginn stornieren?",
        "Nein, nach Beginn der Reise kann eine Buchung nicht storniert werden.",
        [
            "Sobald die Reise begonnen hat, ist eine Stornierung der Buchung ausgeschlossen.",
            "Eine Buchung lässt sich nach Reisebeginn nicht mehr stornieren.",
        ],
        [
            "Ja, auch nach Beginn der Reise kann eine Buchung storniert werden.",
            "Nach Beginn der Reise wird eine Buchung kostenlos storniert.",
        ],
    ),
    (
        "Do I have to pay for the return?",
        "The return is free of charge for you.",
        [
            "You do not have to pay anything for the return.",
            "Returning it costs you nothing, it is free of charge.",
        ],
        [
            "The return is not free of charge for you.",
            "You pay for the return, it is charged to you.",
        ],
    ),
    (
        "Muss ich den Rückversand bezahlen?",
        "Der Rückversand ist für Sie kostenlos.",
        [
            "Sie müssen für den Rückversand nichts bezahlen, er ist kostenlos.",
            "Der Rückversand kostet Sie nichts.",
        ],
        [
            "Der Rückversand ist für Sie nicht kostenlos.",
            "Der Rückversand ist kostenpflichtig, und Sie bezahlen ihn.",
        ],
    ),
    (
        "Why do the brakes squeal?",
        "The brake pads are dirty. Clean them with alcohol and roughen the surface with sandpaper.",
        [
            "Your brake pads are not clean any more. Wipe them with alcohol and roughen them with sandpaper.",
            "Dirt on the brake pads is the cause: clean them with alcohol, then use sandpaper on the surface.",
        ],
        [
            "The brake pads are not dirty. Do not clean them with alcohol.",
            "The brake pads are dirty, but never use alcohol or sandpaper on the surface.",
        ],
    ),
    (
        "Warum quietschen die Bremsen?",
        "Die Bremsbeläge sind verschmutzt. Reinigen Sie sie mit Alkohol und rauen Sie die Oberfläche mit Schleifpapier auf.",
        [
            "Ihre Bremsbeläge sind nicht mehr sauber. Reinigen Sie sie mit Alkohol und rauen Sie sie mit Schleifpapier auf.",
            "Das liegt an verschmutzten Bremsbelägen: mit Alkohol säubern und die Oberfläche mit Schleifpapier aufrauen.",
        ],
        [
            "Die Bremsbeläge sind nicht verschmutzt. Reinigen Sie sie nicht mit Alkohol.",
            "Die Bremsbeläge dürfen niemals mit Alkohol gereinigt und nicht mit Schleifpapier aufgeraut werden.",
        ],
    ),
    (
        "Can I put the lamp outside?",
        "The lamp must not be used outside, because it is not protected against rain.",
        [
            "Use the lamp only indoors, since it lacks protection against rain.",
            "It is forbidden to use the lamp outside: there is no protection against rain.",
        ],
        [
            "The lamp may be used outside, because it is protected against rain.",
            "You can use the lamp outside in any weather.",
        ],
    ),
    (
        "Darf die Lampe nach draußen?",
        "Die Lampe darf nicht im Freien benutzt werden, weil sie vor Regen nicht geschützt ist.",
        [
            "Benutzen Sie die Lampe nur im Haus, denn ihr fehlt der Schutz vor Regen.",
            "Es ist verboten, die Lampe im Freien zu benutzen, sie ist vor Regen ungeschützt.",
        ],
        [
            "Die Lampe darf im Freien benutzt werden, weil sie vor Regen geschützt ist.",
            "Sie können die Lampe bei jedem Wetter im Freien benutzen.",
        ],
    ),
    (
        "When do I get the refund?",
        "The refund is paid after the goods have arrived at our warehouse.",
        [
            "The refund is not paid before the goods have arrived at our warehouse.",
            "We pay the refund only once the goods are back in our warehouse.",
        ],
        [
            "The refund is not paid, even after the goods have arrived at our warehouse.",
            "The refund is paid before the goods have arrived at our warehouse, so do not wait.",
        ],
    ),
    (
        "Wann bekomme ich mein Geld zurück?",
        "Die Erstattung erfolgt, sobald die Ware in unserem Lager eingetroffen ist.",
        [
            "Die Erstattung erfolgt nicht, bevor die Ware in unserem Lager eingetroffen ist.",
            "Wir erstatten erst, wenn die Ware wieder in unserem Lager ist.",
        ],
        [
            "Die Erstattung erfolgt nicht, auch wenn die Ware in unserem Lager eingetroffen ist.",
            "Eine Erstattung für die Ware in unserem Lager gibt es nicht.",
        ],
    ),
    (
        "Does the plan include calls abroad?",
        "Calls to other countries are not included in the plan and are charged by the minute.",
        [
            "The plan excludes calls to other countries; these are charged by the minute.",
            "Calls to other countries cost extra, by the minute, since the plan does not cover them.",
        ],
        [
            "Calls to other countries are included in the plan and are not charged by the minute.",
            "All calls to other countries are included in the plan at a flat rate.",
        ],
    ),
    (
        "Sind Anrufe ins Ausland enthalten?",
        "Anrufe ins Ausland sind im Tarif nicht enthalten und werden nach Minuten berechnet.",
        [
            "Der Tarif schließt Anrufe ins Ausland aus; sie werden nach Minuten berechnet.",
            "Anrufe ins Ausland kosten extra und werden nach Minuten berechnet, der Tarif deckt sie nicht ab.",
        ],
        [
            "Anrufe ins Ausland sind im Tarif enthalten und werden nicht nach Minuten berechnet.",
            "Alle Anrufe ins Ausland sind im Tarif enthalten.",
        ],
    ),
    (
        "The scanner is slow, what can I do?",
        "Restart the scanner and keep the lid closed while it warms up.",
        [
            "Restart the scanner, and do not open the lid while it is warming up.",
            "Switch the scanner off and on, then leave the lid closed until it is warm.",
        ],
        [
            "Do not restart the scanner, and do not keep the lid closed while it warms up.",
            "Never restart the scanner; open the lid while it warms up.",
        ],
    ),
    (
        "Der Scanner ist langsam, was hilft?",
        "Starten Sie den Scanner neu und lassen Sie den Deckel beim Aufwärmen geschlossen.",
        [
            "Starten Sie den Scanner neu und öffnen Sie den Deckel beim Aufwärmen nicht.",
            "Scanner neu starten; der Deckel bleibt geschlossen, solange er sich aufwärmt.",
        ],
        [
            "Starten Sie den Scanner nicht neu und lassen Sie den Deckel nicht geschlossen.",
            "Der Scanner darf nie neu gestartet werden, und der Deckel ist beim Aufwärmen nicht geschlossen.",
        ],
    ),
    (
        "How late may I arrive at the hotel?",
        "You must arrive by 10 pm, because the reception closes then.",
        [
            "Please arrive no later than 10 pm, as the reception closes then.",
            "Do not arrive after 10 pm: that is when the reception closes.",
        ],
        [
            "You must not arrive by 10 pm, because the reception is closed then.",
            "You need not arrive by 10 pm, because the reception never closes.",
        ],
    ),
    (
        "Bis wann muss ich im Hotel sein?",
        "Sie müssen bis 22 Uhr anreisen, weil die Rezeption dann schließt.",
        [
            "Reisen Sie nicht später als 22 Uhr an, denn dann schließt die Rezeption.",
            "Nach 22 Uhr können Sie nicht mehr anreisen, weil die Rezeption dann schließt.",
        ],
        [
            "Sie müssen nicht bis 22 Uhr anreisen, weil die Rezeption nie schließt.",
            "Sie können jederzeit anreisen, die Rezeption schließt um 22 Uhr nicht.",
        ],
    ),
    (
        "Is the old charger suitable for the new phone?",
        "The old charger is unsuitable for the new phone and can damage its battery.",
        [
            "The old charger is not suitable for the new phone, its battery may be damaged.",
            "No, do not use the old charger with the new phone, since it can damage the battery.",
        ],
        [
            "The old charger is suitable for the new phone and cannot damage its battery.",
            "The old charger is not unsuitable for the new phone and will not damage the battery.",
        ],
    ),
    (
        "Passt das alte Ladegerät zum neuen Telefon?",
        "Das alte Ladegerät ist für das neue Telefon ungeeignet und kann den Akku beschädigen.",
        [
            "Das alte Ladegerät ist für das neue Telefon nicht geeignet und kann dem Akku schaden.",
            "Nein, verwenden Sie das alte Ladegerät nicht mit dem neuen Telefon, der Akku kann beschädigt werden.",
        ],
        [
            "Das alte Ladegerät ist für das neue Telefon geeignet und kann den Akku nicht beschädigen.",
            "Das alte Ladegerät passt zum neuen Telefon und wird den Akku nicht beschädigen.",
        ],
    ),
    (
        "What does the guarantee cover?",
        "The guarantee covers faults of material, but not damage by water.",
        [
            "Faults of material are covered by the guarantee; damage by water is excluded.",
            "The guarantee covers only faults of material, and damage by water is no part of it.",
        ],
        [
            "The guarantee does not cover faults of material, but damage by water.",
            "The guarantee covers faults of material and also damage by water.",
        ],
    ),
    (
        "Was deckt die Garantie ab?",
        "Die Garantie gilt für Fehler des Materials, aber nicht für Schäden durch Wasser.",
        [
            "Fehler des Materials sind von der Garantie gedeckt, Schäden durch Wasser sind ausgeschlossen.",
            "Die Garantie gilt nur für Fehler des Materials; Schäden durch Wasser gehören nicht dazu.",
        ],
        [
            "Die Garantie gilt nicht für Fehler des Materials, aber für Schäden durch Wasser.",
            "Die Garantie gilt für Fehler des Materials und auch für Schäden durch Wasser.",
        ],
    ),
]
