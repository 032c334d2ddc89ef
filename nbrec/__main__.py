"""`python -m nbrec` lists the commands of the package."""

COMMANDS = {
    "nbrec.experiment": "run a profile: models, folds, records (make results does it)",
    "nbrec.play.bundle": "train models to play with and write them into app/models",
    "nbrec.play.tmdb": "fetch films' metadata with your own key of The Movie Database",
    "nbrec.book.growth": "measure time and memory as histories grow",
    "nbrec.book.ties": "measure what the order of films of one instant does",
    "nbrec.tuning": "write the best trial of each model that was tuned",
}

if __name__ == "__main__":
    print("The commands of nbrec; --help after one of them says more:\n")
    for module, what in COMMANDS.items():
        print(f"  python -m {module:24} {what}")
