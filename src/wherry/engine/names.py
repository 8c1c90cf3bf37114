"""Names for containers whose users gave none: a temper and someone of the sea."""

import secrets
from collections.abc import Callable

_TEMPERS = """
able agile alert ample apt ardent astute blithe bold brave breezy bright brisk calm candid cheery civil clear clever
cosy crisp curious daring deft devoted eager earnest easy elated fair faithful fearless fleet fond frank free fresh
gallant genial gentle glad golden grand handy happy hardy hearty helpful honest hopeful humble jaunty jolly jovial
keen kind lively loyal lucid lucky mellow merry mighty modest neat nimble noble patient placid plucky polite proud
prudent quick quiet ready robust rosy salty sandy serene sharp shiny silent sincere sleek smart snug sober solid sound
spry stable staunch steady sterling still stout sturdy sunny supple sure swift tender tidy tranquil trusty upbeat
valiant vivid warm wily wise witty worthy zesty
"""
_SAILORS = """
amundsen anning anson baffin baltimore barents baret beaufort bering bligh bonny bowditch cabot chichester columbus
cook cousteau dampier davis diaz drake earle elcano erikson fitzroy flinders franklin frobisher gama gilbert grenfell
hawkins heyerdahl hudson humboldt irving jeanneau joyon kane knoxjohnston laperouse macarthur magellan malaspina maury
mawson mercator moitessier nansen nelson nobile parry peary piccard pytheas raleigh ross scott selkirk shackleton
slocum smith stark swale tabarly tasman tharp tilman torres tupaia vancouver vespucci villiers wallis weddell
westerman wilkes worsley yonge zhenghe
"""
_LEFT = tuple(_TEMPERS.split())
_RIGHT = tuple(_SAILORS.split())


def make_name(taken: Callable[[str], bool]) -> str:
    """A name that is not taken, like `steady_tasman`; with digits at its end when those run out."""
    for attempt in range(1000):
        name = f"{secrets.choice(_LEFT)}_{secrets.choice(_RIGHT)}"
        if attempt >= 5:
            name += str(secrets.randbelow(10 ** (1 + attempt // 10)))
        if not taken(name):
            return name
    raise AssertionError("unreachable: the digits grow with every attempt")
