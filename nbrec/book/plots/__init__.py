# ruff: noqa: F403
"""The book's figures and tables, all in one style.

Functions return the figure or table and never show it.
"""

from nbrec.book.plots.cost import *
from nbrec.book.plots.data import *
from nbrec.book.plots.models import *
from nbrec.book.plots.personalisation import *
from nbrec.book.plots.persons import *
from nbrec.book.plots.published import *
from nbrec.book.plots.results import *
from nbrec.book.plots.runs import *
from nbrec.book.plots.style import *
from nbrec.book.plots.tables import *
from nbrec.book.plots.verdicts import *
