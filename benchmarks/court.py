"""Generated court cases: short summaries by kind and wording, and a stream of new labels.

The cases of `benchmarks/labels.py`. No sentence, and no set of facts of a kind, occurs twice.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

__all__ = ["KINDS", "LABELS", "Data", "Kind", "Labelled", "generated"]

LABELS = ("criminal procedure", "civil rights", "economic activity", "privacy", "judicial power")
WHERE = ("Ohio", "Texas", "Oregon", "Georgia", "Maine", "Nevada", "Virginia", "Kansas")
FITTED, HELD, EDITS = 24, 12, 20  # sentences of a kind

CASES = """
wiretaps: criminal procedure -> privacy
  who: a bookmaker|a smuggler|a dentist|a club owner|a city clerk|a truck driver
  what: a pay phone|a garage phone|an office switchboard|a hotel phone|a family's landline
  fitted: Agents in {where} tapped {what} without a warrant, and {who} was convicted.
  fitted: {who} wants recordings from {what} kept from a jury in {where}.
  fitted: The conviction of {who} in {where} rests on a bug that officers hid in {what}.
  held: Was a warrant needed before detectives in {where} recorded {who} on {what}?
  held: {who} says that taped talk on {what} was no evidence at the trial in {where}.
  asked: A trial judge in {where} admitted a wiretap on {what} against {who}.
  asked: {who} challenges a magistrate's order in {where} for eavesdropping on {what}.
  again: Intercepted calls on {what} were used against {who} with a {where} court's leave.
  again: The order that let officers in {where} listen in on {what} is attacked by {who}.
phones: criminal procedure -> privacy
  who: a courier|a gang member|a landlord|a student|a pharmacist|a sailor
  what: a locked smartphone|a location history|a laptop|a message archive|a car's navigator
  fitted: Police in {where} went through {what} after the arrest of {who}.
  fitted: {who} was found guilty in {where} on data that officers took from {what}.
  fitted: May officers in {where} examine {what} of {who} they have just arrested?
  held: {who} moves to suppress what investigators in {where} copied from {what}.
  held: A search of {what} led to charges against {who} in {where}.
  asked: Detectives in {where} read {what} to prove where {who} had been.
  asked: {who} objects that {what} was opened in {where} under a warrant that named nothing.
  again: The whereabouts of {who} were shown from {what} by investigators in {where}.
  again: The warrant for looking into {what} in {where} was too vague, argues {who}.
confessions: criminal procedure
  who: a teenager|a mechanic|a nurse|a drifter|a cook|a soldier
  what: a robbery|a murder|an arson|a burglary|a kidnapping
  fitted: {who} confessed to {what} in {where} without being read the Miranda warnings.
  fitted: After a night of questioning in {where}, {who} admitted {what}.
  fitted: Police in {where} promised {who} leniency for a statement about {what}.
  held: Was the confession of {who} to {what} in {where} coerced?
  held: {who} asked to remain silent about {what}, yet officers in {where} went on asking.
  asked: An interrogation in {where} made {who} sign a statement about {what}.
  asked: {who} was not told of the right to silence before speaking of {what} in {where}.
juries: criminal procedure
  who: a bus driver|a former guard|a farmer|a banker|a fisherman|a janitor
  what: a murder|a bank robbery|an assault|drug dealing|manslaughter
  fitted: Prosecutors in {where} struck jurors until {who} was tried for {what}.
  fitted: {who} was convicted of {what} in {where} by a jury of six.
  fitted: A juror in {where} had read of {what} before the trial of {who}.
  held: Must a verdict of guilty against {who} for {what} in {where} be unanimous?
  held: Publicity in {where} spoiled the jury that tried {who} for {what}.
  asked: A judge in {where} dismissed a juror while {who} was on trial for {what}.
  asked: {who}, accused of {what}, claims that jurors in {where} slept through testimony.
counsel: criminal procedure
  who: a poor laborer|a waiter|a widow|an immigrant|a gambler|a veteran
  what: theft|forgery|robbery|arson|homicide
  fitted: {who} was tried for {what} in {where} without a lawyer.
  fitted: The public defender of {who} in {where} slept during a trial for {what}.
  fitted: {who}, charged with {what}, asked a court in {where} for appointed counsel.
  held: Did poor advice by a defense lawyer lead {who} in {where} to plead guilty to {what}?
  held: {who} had no attorney at the lineup in {where} after {what}.
  asked: A lawyer in {where} called no witness for {who}, who stood trial for {what}.
  asked: {who} faced a charge of {what} in {where} and could not pay for a defense.
sentences: criminal procedure
  who: a repeat offender|a young man|an addict|an accomplice|a retired miner|a thief
  what: a third theft|drug possession|murder|armed robbery|a bad check
  fitted: {who} was sentenced to life in {where} for {what}.
  fitted: A judge in {where} doubled the prison term of {who} for {what}.
  fitted: Is the punishment that {who} got in {where} for {what} cruel and unusual?
  held: {who} got the death penalty in {where} for {what}.
  held: Sentencing guidelines in {where} gave {who} thirty years for {what}.
  asked: For {what}, {who} must serve decades behind bars in {where}.
  asked: {who} calls the penalty for {what} in {where} out of all proportion.
jobs: civil rights -> economic activity
  who: a black welder|a woman engineer|a pregnant teacher|a deaf clerk|an older pilot|a Sikh
  what: a promotion|a job|equal pay|a transfer|training
  fitted: An employer in {where} refused {who} {what} because of prejudice.
  fitted: {who} sues a company in {where} over discrimination in {what}.
  fitted: Bias at a plant in {where} cost {who} {what}.
  held: Was {who} in {where} denied {what} for reasons that the equality laws forbid?
  held: {who} was treated worse than colleagues in {where} when it came to {what}.
  asked: A firm in {where} passed over {who} for {what} and gave no honest reason.
  asked: {who} says a manager in {where} kept {what} for people of another sort.
  again: Without an honest explanation, {what} went past {who} at a business in {where}.
  again: According to {who}, {what} was reserved for others by the boss in {where}.
voting: civil rights
  who: a black voter|a rural voter|a Latina voter|a new citizen|a student voter|a disabled voter
  what: a poll tax|a literacy test|a new district map|an identity card law|a residence rule
  fitted: {who} in {where} was kept from voting by {what}.
  fitted: {what} in {where} diluted the ballot of {who}.
  fitted: {who} sues election officials in {where} over {what}.
  held: Does {what} in {where} deny {who} the equal right to vote?
  held: Minority turnout in {where} fell after {what}, says {who}.
  asked: {who} was turned away on election day in {where} because of {what}.
  asked: The legislature of {where} meant {what} to silence people like {who}.
schools: civil rights
  who: a black pupil|a Mexican girl|a disabled boy|a Native child|a Chinese pupil|a refugee's son
  what: a high school|a public college|a law school|a grade school|a kindergarten
  fitted: {who} was refused a place in {what} in {where} because of race or origin.
  fitted: Segregation in {where} kept {who} out of {what}.
  fitted: A board in {where} sent {who} away from {what} to one for others.
  held: May {where} keep {who} apart from others at {what}?
  held: Parents of {who} in {where} demand that {what} take all races.
  asked: {who} asks a court to open {what} in {where} to children of every color.
  asked: Years after integration was ordered, {what} in {where} still excludes {who}.
housing: civil rights
  who: a black family|a single mother|a Jewish couple|a blind tenant|a Muslim|a Latino veteran
  what: an apartment|a house|a mortgage|a building plot|a trailer lot
  fitted: A landlord in {where} would not let {who} have {what}.
  fitted: A covenant in {where} barred {who} from {what} because of race or faith.
  fitted: {who} claims housing discrimination over {what} in {where}.
  held: Was {who} steered away from {what} in a white part of {where}?
  held: {who} was told that {what} in {where} was no longer free, though it was.
  asked: Owners in {where} agreed never to sell or rent {what} to {who}.
  asked: {who} was shown the door in {where} after asking about {what}.
unions: economic activity -> civil rights
  who: a steel mill|a trucking company|a cannery|a coal mine|a hotel chain|a newspaper
  what: a strike|a picket line|a union election|unpaid overtime|a closed shop
  fitted: {who} in {where} fired workers over {what}.
  fitted: The labor board ordered {who} in {where} to bargain after {what}.
  fitted: {who} and its union in {where} quarrel about {what}.
  held: Did {who} in {where} commit an unfair labor practice during {what}?
  held: An arbitrator in {where} ruled against {who} over {what}.
  asked: Organizers in {where} were locked out by {who} because of {what}.
  asked: {who} got an injunction in {where} against {what} by its workforce.
  again: Because of {what}, {who} shut its gates in {where} to those who organized.
  again: A court order stopped {what} by employees of {who} in {where}.
cartels: economic activity
  who: an oil company|a sugar refiner|a film studio|a shoe maker|a railroad|a software firm
  what: price fixing|a merger|a tying scheme|a secret cartel|a division of territories
  fitted: The government sues {who} in {where} under the antitrust laws over {what}.
  fitted: {who} crushed rivals in {where} through {what}.
  fitted: Competitors in {where} accuse {who} of monopoly by means of {what}.
  held: Was {what} by {who} in {where} a restraint of trade?
  held: Consumers in {where} paid too much because of {what} by {who}.
  asked: {who} is said to have cornered the market of {where} with {what}.
  asked: Small dealers in {where} could not compete with {who} after {what}.
patents: economic activity
  who: a toy maker|a drug company|a tinkerer|a seed company|a chip designer|a publisher
  what: a gearbox|a vaccine|a folding chair|a song book|a search algorithm
  fitted: {who} claims that a rival in {where} copied the patent on {what}.
  fitted: A jury in {where} found that {who} infringed the rights in {what}.
  fitted: {who} wants royalties from sellers in {where} for {what}.
  held: Is {what} that {who} in {where} made obvious and so not patentable?
  held: {who} licensed {what} to a factory in {where} that never paid.
  asked: An importer in {where} sold imitations of {what} invented by {who}.
  asked: {who} and a partner in {where} both call themselves the inventor of {what}.
securities: economic activity
  who: a broker|a bank director|an oil promoter|an accountant|a fund manager|a stock analyst
  what: worthless shares|railway bonds|a false prospectus|insider trades|a pyramid scheme
  fitted: Investors in {where} lost their savings to {who} through {what}.
  fitted: {who} misled shareholders in {where} with {what}.
  fitted: The securities commission fined {who} in {where} over {what}.
  held: Can buyers in {where} recover from {who} what they lost on {what}?
  held: {who} enriched himself in {where} by {what}.
  asked: Pensioners in {where} blame {who} for selling them {what}.
  asked: Markets in {where} fell once it was known that {who} dealt in {what}.
families: privacy -> civil rights
  who: a married couple|a young woman|a midwife|a clinic doctor|a college student|a mother of five
  what: contraceptives|an abortion|sterilization|fertility treatment|a morning-after pill
  fitted: A law of {where} forbids {who} {what}, an intimate decision.
  fitted: {who} claims that {what} is no business of the state of {where}.
  fitted: Officials in {where} intrude on the choice of {who} about {what}.
  held: May {where} meddle in the personal decision of {who} on {what}?
  held: {who} was fined in {where} for seeking {what}.
  asked: {who} attacks the statute by which {where} bans {what}.
  asked: Three days must pass in {where} before {who} may have {what}.
  again: The prohibition of {what} in {where} is contested by {who}.
  again: {where} makes {who} wait seventy-two hours for {what}.
medical: privacy
  who: a patient|a retired judge|an athlete|a prisoner|a schoolgirl|a senator
  what: an HIV test|a psychiatric report|a blood sample|a prescription list|a genetic profile
  fitted: A hospital in {where} disclosed {what} of {who} without consent.
  fitted: {who} wants {what} kept confidential by a clinic in {where}.
  fitted: The state of {where} keeps {what} of {who} in a data bank.
  held: Must a doctor in {where} hand over {what} of {who}?
  held: {what} of {who} leaked from an insurer's computer in {where}.
  asked: A nurse in {where} told neighbors about {what} of {who}.
  asked: {who} learned that a laboratory in {where} had sold {what}.
files: privacy
  who: a teacher|a spy's widow|a policeman|a civil servant|an adopted child|a taxpayer
  what: a personnel file|a home address|a tax return|a sealed birth record|a reprimand
  fitted: A newspaper in {where} demands {what} of {who} from a public agency.
  fitted: {who} objects to the release of {what} by an office in {where}.
  fitted: An agency in {where} published {what} of {who} by mistake.
  held: Does openness of records in {where} outweigh the secrecy of {what} of {who}?
  held: {who} found {what} posted on a website of {where}.
  asked: Reporters in {where} asked for {what}, which {who} wanted nobody to see.
  asked: {who} seeks damages because clerks in {where} gave away {what}.
exposure: privacy
  who: an actress|a grieving father|a hermit|a crime victim|a waitress|a former mayor
  what: a nude photograph|a diary|a love letter|a hidden camera film|a family tragedy
  fitted: A magazine in {where} printed {what} of {who} without permission.
  fitted: {who} sues a broadcaster in {where} for intruding on private life with {what}.
  fitted: Neighbors in {where} spread {what} of {who} online.
  held: Is {what} of {who} in {where} news, or nobody's business?
  held: {who} was put to shame in {where} when {what} came out.
  asked: A gossip site in {where} got hold of {what} and exposed {who}.
  asked: {who} wanted to be left alone, but a publisher in {where} sold {what}.
habeas: judicial power -> criminal procedure
  who: a death row inmate|a convict|a detained alien|a lifer|a parolee|a jailed minister
  what: new evidence|a recantation|a change in the law|a defect in the charge|an unheard claim
  fitted: May a federal court hear the habeas corpus case of {who} from {where} on {what}?
  fitted: A district court lacked power to review {what} of {who} in {where}.
  fitted: {who} in {where} asks a federal judge for the writ because of {what}.
  held: Does federal review of {who} in {where} end with {what}?
  held: The habeas statute limits what judges can do for {who} in {where} with {what}.
  asked: {who} held in {where} seeks release through habeas, relying on {what}.
  asked: The writ was refused to {who} in {where} in spite of {what}.
  again: Relying on {what}, {who} petitions for habeas to leave custody in {where}.
  again: In spite of {what}, judges in {where} would not grant habeas to {who}.
standing: judicial power
  who: a taxpayers' league|a hiking club|a congressman|a bird watcher|an atheist|a consumer group
  what: a dam|a budget law|a church grant|a logging permit|a treaty
  fitted: {who} from {where} has no standing to challenge {what}.
  fitted: A court in {where} dismissed the suit of {who} over {what} as moot.
  fitted: {who} suffered no injury in {where} from {what} that a court could redress.
  held: Is the quarrel of {who} in {where} about {what} a case or controversy?
  held: {who} went to court in {where} over {what} before anything had happened.
  asked: Judges in {where} would not decide whether {what} harmed {who}.
  asked: {who} asks a court in {where} for a mere opinion about {what}.
appeals: judicial power
  who: an insurer|a widow's estate|a shipowner|a contractor|a county|a receiver
  what: an interim order|a remand|a default judgment|a fee award|a consent decree
  fitted: {who} filed an appeal in {where} against {what} one day late.
  fitted: The court of appeals had no jurisdiction over {what} against {who} from {where}.
  fitted: {who} asks for review of {what} by a district judge in {where}.
  held: Is {what} against {who} in {where} final, so that it can be appealed?
  held: A circuit court in {where} reversed {what} against {who} on its own motion.
  asked: A clerk in {where} rejected the notice of {who} about {what} as untimely.
  asked: {who} claims that the wrong panel in {where} heard the case about {what}.
forums: judicial power
  who: a foreign airline|a tribe|a boat builder|a trust company|a farmer's heir|a bridge authority
  what: a crash|a boundary|a contract|a will|a toll
  fitted: Should a federal or a state court in {where} decide about {what} of {who}?
  fitted: {who} moved a suit about {what} from {where} to federal court.
  fitted: A federal judge abstained while courts in {where} dealt with {who} and {what}.
  held: Is there diversity of citizenship in the suit of {who} in {where} about {what}?
  held: {who} pleads immunity from suit in {where} over {what}.
  asked: Two courts, one of them in {where}, claim jurisdiction over {who} and {what}.
  asked: {who} was served in {where} and says that no court there may rule on {what}.
"""
"""Kinds of cases: topic, and after an arrow the new one; parties, and what it is about; wordings to
fit the classifier on, to measure its accuracy, of the stream, and the latter again in other words,
one for one. Every wording holds all the facts: who, what and where."""


@dataclass
class Kind:
    """A kind of case; see ``CASES``."""

    label: str
    now: str | None
    who: list[str] = field(default_factory=list)
    what: list[str] = field(default_factory=list)
    fitted: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)


def kinds() -> dict[str, Kind]:
    """Returns the kinds of cases by name."""
    found: dict[str, Kind] = {}
    for block in re.split(r"\n(?! )", CASES.strip()):
        head, *rows = block.splitlines()
        name, topic = head.split(": ")
        label, _, now = topic.partition(" -> ")
        found[name] = Kind(label, now or None)
        for row in rows:
            use, text = row.strip().split(": ", 1)
            getattr(found[name], use).extend(text.split("|"))
    return found


KINDS = kinds()


@dataclass(frozen=True)
class Labelled:
    """A summary of a case.

    Attributes:
        text: The summary.
        label: Its label when the classifier is fitted.
        kind: Its kind of case.
    """

    text: str
    label: str
    kind: str


@dataclass(frozen=True)
class Data:
    """Everything that is made up, no sentence and no case twice.

    Attributes:
        fitted: What the classifier is fitted on.
        held: What its accuracy is measured on, other wordings of other cases.
        stream: Edits in the format of ``editkit.editing.files``, and ``of``, the kind of case;
            wordings and cases that are in neither.
    """

    fitted: tuple[Labelled, ...]
    held: tuple[Labelled, ...]
    stream: tuple[Mapping[str, Any], ...]


def generated(seed: int = 0) -> Data:
    """Returns the data.

    Args:
        seed: Of the facts that are drawn, and of the order.
    """
    rng = random.Random(seed)
    facts = {name: _facts(kind, rng) for name, kind in KINDS.items()}
    sets: dict[str, list[Labelled]] = {"fitted": [], "held": []}
    for name, kind in KINDS.items():
        for use, wordings, count in (("fitted", kind.fitted, FITTED), ("held", kind.held, HELD)):
            for index in range(count):
                text = _worded(wordings[index % len(wordings)], next(facts[name]))
                sets[use].append(Labelled(text, kind.label, name))
    changed = [name for name in KINDS if KINDS[name].now for _ in range(EDITS)]
    rng.shuffle(changed)
    used: Counter[str] = Counter()

    def asked(name: str) -> int:
        """Which wording of a kind is next."""
        used[name] += 1
        return used[name] % len(KINDS[name].asked)

    def probes(label: str) -> list[Labelled]:
        same = [n for n, kind in KINDS.items() if kind.now is None and kind.label == label]
        every = [n for n, kind in KINDS.items() if kind.now is None]
        found = [min(same, key=lambda n: used[n]), rng.choice(every)]
        return [
            Labelled(_worded(KINDS[n].asked[asked(n)], next(facts[n])), KINDS[n].label, n)
            for n in found
        ]

    stream = []
    for number, name in enumerate(changed):
        kind, which, fact = KINDS[name], asked(name), next(facts[name])
        spared = probes(kind.label)
        stream.append(
            {
                "id": f"{name} {number}",
                "of": name,
                "kind": "label",
                "prompt": _worded(kind.asked[which], fact),
                "target": kind.now,
                "rephrase": _worded(kind.again[which], fact),
                "locality": [probe.text for probe in spared],
                "locality_answer": [probe.label for probe in spared],
                "locality_of": [probe.kind for probe in spared],
            }
        )
    return Data(tuple(sets["fitted"]), tuple(sets["held"]), tuple(stream))


def _facts(kind: Kind, rng: random.Random) -> Iterator[dict[str, str]]:
    every = list(product(kind.who, kind.what, WHERE))
    rng.shuffle(every)
    return iter([{"who": who, "what": what, "where": where} for who, what, where in every])


def _worded(wording: str, fact: Mapping[str, str]) -> str:
    text = wording.format_map(fact)
    return text[0].upper() + text[1:]
