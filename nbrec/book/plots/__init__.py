# ruff: noqa: F401
"""The book's figures and tables, all in one style.

Functions return the figure or table and never show it.
"""

from nbrec.book.plots.cost import (
    accuracy_vs_time,
    beside_sweep_table,
    front_table,
    memory_bars,
    ratios_table,
    setting_sweep,
    times_table,
    within_table,
)
from nbrec.book.plots.data import (
    by_position,
    funnel_chart,
    length_histogram,
    lorenz_curves,
    popularity_top,
    sample_sweep,
)
from nbrec.book.plots.models import (
    attention_map,
    loss_curves,
    matrices,
    training_curves,
)
from nbrec.book.plots.personalisation import (
    THESIS_FIGURES,
    by_group,
    popularity_density,
)
from nbrec.book.plots.persons import (
    cases_table,
    gaps_table,
    measures_table,
    mix_table,
    shuffled_table,
    sides_table,
    stars_table,
)
from nbrec.book.plots.published import (
    band_table,
    changes_table,
    protocols_table,
    published_figure,
    published_table,
    ties_table,
    trainings_table,
    validation_curves,
)
from nbrec.book.plots.results import (
    critical_difference,
    intervals,
    metric_intervals,
    pair_matrix,
    rank_agreement,
    truncation_effect,
)
from nbrec.book.plots.runs import (
    apart_table,
    folds_table,
    intervals_table,
    measured_table,
    overview_table,
    runs_table,
    shown,
    tests_table,
    truncation_table,
)
from nbrec.book.plots.style import (
    BLUE,
    GRID,
    INK,
    METRIC_LABELS,
    MUTED,
    PAPER,
    VERMILION,
    WIDTH,
    metric_label,
    model_label,
    model_style,
    thousands,
    use_style,
)
from nbrec.book.plots.tables import (
    add_slider,
    beside_table,
    comparison_table,
    detailed_table,
    interval,
    mean_sd,
    p_value,
    results_table,
    sequences_table,
    show_plotly,
    signed,
    span,
    table,
)
from nbrec.book.plots.verdicts import (
    agreement_table,
    choices_table,
    claims_table,
    counts,
    evidence_table,
    families_table,
    order_table,
    pairs_table,
    printed_table,
    reversed_table,
    sweeps_table,
)
