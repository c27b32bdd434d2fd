#!/bin/sh
# The main job: a wrong answer, a correction, the right answer in a new process, and back.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

say() { printf '\n# %s\n' "$1"; }
run() {
    printf '$ editkit'
    for word in "$@"; do
        case $word in *[!A-Za-z0-9@._=-]*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
    editkit "$@"
}

question="The capital of Australia is"

say "The default model: a real language model, fetched once into the cache"
run models pull smollm2-135m
run init --model smollm2-135m

say "It is wrong about something"
run generate "$question" --max-new-tokens 8

say "One command corrects it"
run add --prompt "$question" --target "Canberra" --reason "it said Sydney"

say "A new process gives the right answer, and says which edit gave it"
run generate "$question" --max-new-tokens 8
run explain "$question"

say "Everything is written down"
run log
run diff v0 v1

say "And can be taken back"
run rollback v0
run generate "$question" --max-new-tokens 8
run status

printf '\nThis was done in a temporary folder that is gone now. In a folder of yours:\n'
printf '  editkit add --prompt "..." --target "..."\n'
