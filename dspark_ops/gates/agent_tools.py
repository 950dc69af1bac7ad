"""Tools that an agent could have, as the API takes them. Our own; the words of each differ from request to request."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from dspark_ops.gates import words

# name | what it does | parameters: name:type, `?` after an optional one. s text, i integer, n number, b boolean,
# a list of texts.
_TOOLS = """
read_file | Read a text file of the workspace | path:s start:i? lines:i?
write_file | Write a text file, replacing what was there | path:s content:s create_folders:b?
edit_file | Replace one passage of a file by another | path:s old:s new:s all:b?
list_folder | List a folder of the workspace | path:s depth:i? hidden:b?
move_file | Move or rename a file | source:s target:s overwrite:b?
remove_file | Remove one file | path:s
search_text | Search the workspace for a pattern | pattern:s folder:s? ignore_case:b? limit:i?
find_files | Find files by their names | glob:s folder:s? newest_first:b?
run_command | Run a program in the workspace and return what it prints | argv:a timeout_s:n? folder:s?
run_tests | Run the tests of the project | selection:s? stop_at_first:b? workers:i?
format_code | Format files with the project's formatter | paths:a check_only:b?
lint_code | Run the linter over files | paths:a fix:b?
show_changes | Show what differs from the last commit | paths:a? context:i?
commit_changes | Record the changes with a message | message:s paths:a? sign:b?
list_commits | List the latest commits | limit:i? author:s? path:s?
open_change_request | Open a request to merge a branch | title:s body:s branch:s draft:b?
comment_on_change | Comment on a change request | number:i body:s line:i? path:s?
fetch_page | Fetch a page of the internal documentation | address:s as_text:b?
search_documents | Search the documentation | query:s limit:i? section:s?
search_web | Search public pages | query:s limit:i? since:s?
ask_database | Run one reading statement on the reporting database | statement:s limit:i? timeout_s:n?
describe_table | Say which columns a table has | table:s schema:s?
list_tables | List the tables of a schema | schema:s pattern:s?
explain_statement | Show the plan of a statement | statement:s analyse:b?
list_services | List services with their states | group:s? only_failed:b?
service_log | Read the log of a service | service:s lines:i? since:s? grep:s?
restart_service | Restart a service after a confirmation | service:s reason:s drain_s:i?
scale_service | Change the number of copies of a service | service:s copies:i reason:s
read_metric | Read a time series | name:s minutes:i? labels:a? step_s:i?
list_alerts | List alerts that are firing | severity:s? service:s?
silence_alert | Silence an alert for a while | alert:s minutes:i reason:s
page_person | Page whoever is on call | team:s message:s urgent:b?
create_ticket | Create a ticket | title:s body:s queue:s priority:i? labels:a?
update_ticket | Change fields of a ticket | number:i state:s? owner:s? comment:s?
find_tickets | Find tickets | query:s state:s? limit:i?
list_events | List events of a calendar | calendar:s since:s until:s limit:i?
create_event | Put an event into a calendar | calendar:s title:s start:s minutes:i guests:a? room:s?
find_free_slot | Find a time at which all guests are free | guests:a minutes:i since:s until:s
send_mail | Send a mail | to:a subject:s body:s copy_to:a?
search_mail | Search the mailbox | query:s folder:s? since:s? limit:i?
post_message | Post into a channel | channel:s text:s thread:s?
read_channel | Read the latest messages of a channel | channel:s limit:i? before:s?
find_person | Find a person in the directory | name:s team:s?
convert_units | Convert a quantity | value:n source:s target:s
current_time | Say what time it is | zone:s
weather_report | Report the weather of a place | place:s days:i? units:s?
plan_route | Plan a way between two places | origin:s target:s mode:s? avoid:a?
translate_text | Translate a text | text:s target:s source:s? formal:b?
summarise_text | Summarise a text | text:s words:i? bullet_points:b?
read_table_file | Read a spreadsheet or CSV file | path:s sheet:s? rows:i? header:b?
plot_series | Draw a series as a picture | series:a title:s? width:i? log_scale:b?
resize_picture | Resize a picture | path:s width:i height:i? keep_ratio:b?
hash_file | Compute a digest of a file | path:s algorithm:s?
list_hosts | List hosts with their roles | role:s? rack:s? limit:i?
read_host_facts | Read facts of a host | host:s subjects:a?
copy_to_host | Copy a file to a host | path:s host:s target:s mode:s?
remember_note | Keep a note for later turns | key:s text:s days:i?
recall_note | Find a note that was kept | key:s? query:s? limit:i?
"""
_TYPES: dict[str, dict[str, Any]] = {
    "s": {"type": "string"},
    "i": {"type": "integer"},
    "n": {"type": "number"},
    "b": {"type": "boolean"},
    "a": {"type": "array", "items": {"type": "string"}},
}
_HINTS = (
    "Ask for it only when the user's task cannot be done without it.",
    "It answers within {n} seconds or not at all; error {h} means that the owner, {a}, has locked it.",
    "Its results are cut after {n} entries, and the code {h} stands at the cut.",
    "Do not combine it with a tool of the group {a}.",
    "Without the right {a}-{h} it returns an empty result and no error.",
    "Calls are recorded under the name {a} and kept for {n} days.",
)
_FIELD_HINTS = (
    "as {a} writes it",
    "at most {n} of them matter",
    "see rule {h}",
    "no blanks at its ends",
    "in the words of {a}",
)


def function_tool(name: str, description: str, properties: dict[str, Any], required: Sequence[str]) -> dict[str, Any]:
    """One tool as the API takes it; no other arguments are allowed."""
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def offered_tools(
    rng: random.Random,
    must: Sequence[dict[str, Any]],
    *,
    characters: float,
    most: int,
    fewest: int,
    nonce: str,
) -> tuple[dict[str, Any], ...]:
    """`must` and other tools in random order: `fewest` to `most` in all where `characters` of JSON leave room for them.

    The first tool's description begins with the nonce: there are templates that put the tools before the system text.
    """
    taken = {tool["function"]["name"] for tool in must}
    lines = [line for line in _TOOLS.strip().splitlines() if line.split(" | ")[0] not in taken]
    wanted = rng.randint(fewest, most)
    tools, length, pool = list(must), 0, words.names(rng, 12)
    for line in rng.sample(lines, len(lines)):
        if len(tools) >= wanted:
            break
        tool = _tool(line, rng, pool)
        length += len(json.dumps(tool))
        if length > characters:
            break
        tools.append(tool)
    rng.shuffle(tools)
    if not tools:
        return ()
    function = {**tools[0]["function"], "description": f"[{nonce}] {tools[0]['function']['description']}"}
    return ({**tools[0], "function": function}, *tools[1:])


def _tool(line: str, rng: random.Random, pool: Sequence[str]) -> dict[str, Any]:
    name, purpose, fields = line.split(" | ")

    def draw(template: str) -> str:
        return template.format(a=rng.choice(pool), n=rng.randrange(3, 90), h=f"{rng.getrandbits(20):05x}")

    properties: dict[str, Any] = {}
    required = []
    for field in fields.split():
        key, _, letter = field.partition(":")
        hint = f"The {key.replace('_', ' ')}, {draw(rng.choice(_FIELD_HINTS))}."
        properties[key] = {**_TYPES[letter[0]], "description": hint}
        if not letter.endswith("?"):
            required.append(key)
    description = f"{purpose}. {' '.join(draw(hint) for hint in rng.sample(_HINTS, 2))}"
    return function_tool(name, description, properties, required)
