"""Pairs of everyday English words that stand for each other in their commonest sense, same part of speech.

Written by hand for edits that must leave the meaning of a sentence, and what it says for or against a thing,
as it was: strength of praise or blame is kept too (no "good" for "superb"). Each line is one set; a word is
replaced by another of its set. Words whose commonest sense depends on context (right, fine, like, mean) are
left out on purpose.
"""

from __future__ import annotations

_SETS = """
movie film picture
movies films pictures
story tale
stories tales
actor performer
actors performers
director filmmaker
directors filmmakers
script screenplay
viewer spectator
viewers spectators
ending conclusion
kids children
kid child
buy purchase
bought purchased
buying purchasing
big large
bigger larger
biggest largest
small little
tiny minute
quick fast
quickly rapidly
slow sluggish
slowly sluggishly
whole entire
completely totally entirely
almost nearly
maybe perhaps
often frequently
rarely seldom
usually generally
mostly mainly largely
really truly
certainly surely
simply merely
clearly plainly
finally eventually
suddenly abruptly
especially particularly
although though
however nevertheless
begin start
begins starts
began started
end finish
ends finishes
ended finished
try attempt
tries attempts
tried attempted
trying attempting
showed displayed
choose select
chose selected
build construct
built constructed
watched viewed
watching viewing
answer reply
answers replies
think believe
thinks believes
thought believed
happen occur
happens occurs
happened occurred
allow permit
allows permits
allowed permitted
enough sufficient
many numerous
several various
job task
jobs tasks
car automobile
cars automobiles
phone telephone
error mistake
errors mistakes
idea notion
ideas notions
part portion
parts portions
goal aim
goals aims
company firm
companies firms
country nation
countries nations
government administration
strange odd
weird bizarre
funny amusing
boring dull
awful terrible
horrible dreadful
bad poor
great excellent
superb magnificent
wonderful marvelous
beautiful lovely
smart clever
stupid foolish
silly foolish
sad unhappy
happy glad
angry furious
scary frightening
hard difficult
easy simple
cheap inexpensive
expensive costly
loud noisy
quiet silent
famous renowned
important significant
recent latest
modern contemporary
young youthful
fresh original
laugh chuckle
laughs chuckles
cry weep
love adore
loves adores
loved adored
hate detest
hates detests
hated detested
enjoy relish
enjoyed relished
"""


def _table() -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    for line in _SETS.split("\n"):
        words = line.split()
        for word in words:
            others = (*table.get(word, ()), *(w for w in words if w != word))
            table[word] = tuple(dict.fromkeys(others))
    return table


SYNONYMS = _table()  # word -> what may replace it
