"""A page of ordinary text: statements, questions, instructions, code, a few languages.

A model reads it once to measure which tokens it expects everywhere and which it does not. The
content does not matter.
"""

from __future__ import annotations

__all__ = ["TEXT"]

TEXT = """\
The city council met on Tuesday evening to discuss the new budget, and most of its members agreed
that the schools needed more money.
She opened the window, looked out at the rain, and decided to stay at home with a book.
In 1998 the company moved its headquarters from London to New York, where it employed about three
thousand people.
Water boils at a lower temperature in the mountains because the pressure of the air is lower
there.
What is the best way to learn a new language as an adult? Practice every day, even if only for ten
minutes.
The band released its second album in the spring, followed by a long tour through Europe and South
America.
He was born in a small village near the river and studied medicine at the university before the
war began.
Preheat the oven to 180 degrees, mix the flour with the butter and sugar, and bake it for half an
hour.
The results of the study suggest that patients who slept longer recovered faster after the
operation.
I don't think we should sell the house yet; prices have gone up again, and the children like the
garden.
The film, directed by a young woman from Canada, won two awards and was shown in more than forty
countries.
How many players are on the team, and who is the captain this season? The coach would not say.
def mean(values): return sum(values) / len(values)  # raises ZeroDivisionError for an empty list
The king's eldest son married the daughter of a German prince, and their children ruled the
country for a century.
Our flight was delayed for six hours, so we missed the train and had to spend the night at the
airport.
Most of the species found on the island live nowhere else in the world, and several of them are
endangered.
The court held that the law was not in conflict with the constitution and sent the case back to
the lower judge.
Please write a short letter to the customer, explain why the order was late, and offer a small
discount.
The player scored twice in the final and was named the most valuable player of the tournament.
Light from the nearest star takes more than four years to reach us, although it travels faster
than anything else.
Which of the following statements is true? Choose one answer and give a reason for your choice.
The old bridge, built by the Romans, is still used by farmers who bring their animals to the
market.
My grandfather worked as an engineer for the railway and could repair almost any machine.
The software runs on Windows, Linux and macOS, and its source code is available under a free
license.
Le musée est ouvert tous les jours sauf le lundi; la visite dure environ deux heures.
Die Regierung will die Steuern senken, aber die Opposition will das nicht.
El equipo ganó el partido por tres goles a uno ante más de cincuenta mil espectadores.
After the election the party lost half of its seats in parliament, and its leader resigned the
next morning.
The religion of the people in the valley, their songs and their language changed little over the
centuries.
Can you tell me the name of the actor who played the father in that television series?
"""
