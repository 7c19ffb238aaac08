# Reads the YAML (or JSON) that cloud-init's files use and prints one line per scalar: its JSON pointer, a tab,
# its value with \n and \\ escaped. Block and flow collections, all scalar styles; no anchors, no tags.
# An empty collection or null prints an empty value.

{ sub(/\r$/, ""); line[++count] = $0 }

END {
    at = 1
    block("", 0)
    skip()
    if (at <= count) { printf "line %d is not understood: %s\n", at, line[at] | "cat >&2"; exit 1 }
}

function skip() {
    while (at <= count && line[at] ~ /^[ \t]*(#.*)?$|^---[ \t]*(#.*)?$|^\.\.\.[ \t]*$|^%/) at++
}
function indentation(text) { match(text, /^ */); return RLENGTH }
function trim(text) { sub(/^[ \t]+/, "", text); sub(/[ \t]+$/, "", text); return text }
function emit(path, value) { gsub(/\\/, "\\\\", value); gsub(/\n/, "\\n", value); print path "\t" value }
function child(path, key) { gsub(/~/, "~0", key); gsub(/\//, "~1", key); return path "/" key }
function is_item(text) { return text ~ /^-([ \t]|$)/ }

# The position of the colon that ends a key at the start of the text, or 0.
function colon(text,    i, c, quote) {
    quote = substr(text, 1, 1)
    if (quote == "\"" || quote == "'") {
        for (i = 2; i <= length(text); i++) {
            c = substr(text, i, 1)
            if (c == "\\" && quote == "\"") i++
            else if (c == quote) return substr(text, i + 1) ~ /^[ \t]*:([ \t]|$)/ ? i + index(substr(text, i + 1), ":") : 0
        }
        return 0
    }
    if (text ~ /^[\[{|>#&*!%@`]/) return 0
    for (i = 1; i <= length(text); i++)
        if (substr(text, i, 1) == ":" && substr(text, i + 1) ~ /^([ \t]|$)/) return i
        else if (substr(text, i) ~ /^[ \t]#/) return 0
    return 0
}
function unquote(text,    q) {
    text = trim(text)
    q = substr(text, 1, 1)
    if (q == "'" ) { text = substr(text, 2, length(text) - 2); gsub(/''/, "'", text) }
    else if (q == "\"") text = escapes(substr(text, 2, length(text) - 2))
    return text
}
function escapes(text,    out, i, c) {
    out = ""
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        if (c != "\\") { out = out c; continue }
        c = substr(text, ++i, 1)
        if (c == "n") out = out "\n"
        else if (c == "t") out = out "\t"
        else if (c == "r") out = out "\r"
        else if (c == "0") continue
        else if (c == "x") { out = out sprintf("%c", hex(substr(text, i + 1, 2))); i += 2 }
        else if (c == "u") { out = out sprintf("%c", hex(substr(text, i + 1, 4))); i += 4 }
        else out = out c
    }
    return out
}
function hex(digits,    i, value) {
    value = 0
    for (i = 1; i <= length(digits); i++) value = value * 16 + index("0123456789abcdef", tolower(substr(digits, i, 1))) - 1
    return value
}

function block(path, least,    text, here) {
    skip()
    if (at > count) { if (path != "") emit(path, ""); return }
    here = indentation(line[at])
    if (here < least) { emit(path, ""); return }
    text = trim(line[at])
    if (is_item(text)) sequence(path, here)
    else if (colon(text)) mapping(path, here)
    else scalar(path, text, here - 1)
}
function sequence(path, here,    i, text) {
    for (i = 0; ; i++) {
        skip()
        if (at > count || indentation(line[at]) != here || !is_item(trim(line[at]))) return
        # The dash becomes a space: what follows it is then an ordinary, deeper block.
        line[at] = substr(line[at], 1, here) " " substr(line[at], here + 2)
        text = trim(line[at])
        if (text == "" || text ~ /^#/) { at++; block(path "/" i, here + 1) }
        else if (is_item(text) || colon(text)) block(path "/" i, here + 1)
        else scalar(path "/" i, text, here)
    }
}
function mapping(path, here,    text, end, key) {
    for (;;) {
        skip()
        if (at > count || indentation(line[at]) != here) return
        text = trim(line[at])
        end = colon(text)
        if (!end || is_item(text)) return
        key = child(path, unquote(substr(text, 1, end - 1)))
        text = trim(substr(text, end + 1))
        if (text == "" || text ~ /^#/) {
            at++
            skip()
            # A sequence may stand at its key's own indentation.
            if (at <= count && indentation(line[at]) == here && is_item(trim(line[at]))) sequence(key, here)
            else block(key, here + 1)
        } else scalar(key, text, here)
    }
}

# A value that begins on the line at hand; `here` is the indentation of its parent.
function scalar(path, text, here,    first) {
    first = substr(text, 1, 1)
    if (first == "|" || first == ">") literal(path, text, here)
    else if (first == "[" || first == "{" || first == "\"" || first == "'") flow_value(path, text)
    else {
        at++
        sub(/[ \t]+#.*$/, "", text)
        while (at <= count && line[at] !~ /^[ \t]*(#.*)?$/ && indentation(line[at]) > here) text = text " " trim(line[at++])
        emit(path, text ~ /^(~|null)$/ ? "" : text)
    }
}
function literal(path, head, here,    depth, value, text, chomp, fold, blanks, previous) {
    fold = head ~ /^>/
    chomp = head ~ /^[|>][0-9]*-/ ? "-" : head ~ /^[|>][0-9]*\+/ ? "+" : ""
    depth = match(head, /[1-9]/) ? (here < 0 ? 0 : here) + substr(head, RSTART, 1) : -1
    value = ""; blanks = 0; previous = ""
    for (at++; at <= count; at++) {
        text = line[at]
        if (text ~ /^[ \t]*$/) { blanks++; continue }
        if (depth < 0) { if (indentation(text) <= here) break; depth = indentation(text) }
        if (indentation(text) < depth) break
        text = substr(text, depth + 1)
        if (value == "" && previous == "") while (blanks-- > 0) value = value "\n"
        else if (fold && text !~ /^[ \t]/ && previous !~ /^[ \t]/) { value = value (blanks ? "" : " "); while (blanks-- > 0) value = value "\n" }
        else { value = value "\n"; while (blanks-- > 0) value = value "\n" }
        blanks = 0
        value = value text
        previous = text
    }
    if (chomp != "-" && previous != "") value = value "\n"
    if (chomp == "+") while (blanks-- > 0) value = value "\n"
    emit(path, value)
}

# Flow style: `rest` is what is still to be read, over as many lines as it takes.
function flow_value(path, text) { rest = text; at++; flow(path) }
function more() {
    for (;;) {
        sub(/^[ \t\n]+/, "", rest)
        if (rest ~ /^#/) rest = ""
        if (rest != "" || at > count) return
        rest = line[at++]
    }
}
function flow(path,    i, key, first) {
    more()
    first = substr(rest, 1, 1)
    if (first == "[") {
        rest = substr(rest, 2)
        for (i = 0; ; i++) {
            more()
            if (rest ~ /^,/) { rest = substr(rest, 2); more() }
            if (rest == "" || rest ~ /^\]/) break
            flow(path "/" i)
        }
        if (i == 0) emit(path, "")
        rest = substr(rest, 2)
    } else if (first == "{") {
        rest = substr(rest, 2)
        for (i = 0; ; i++) {
            more()
            if (rest ~ /^,/) { rest = substr(rest, 2); more() }
            if (rest == "" || rest ~ /^}/) break
            key = flow_scalar(1)
            more()
            if (rest ~ /^:/) { rest = substr(rest, 2); flow(child(path, key)) }
            else emit(child(path, key), "")
        }
        if (i == 0) emit(path, "")
        rest = substr(rest, 2)
    } else if (rest ~ /^[,\]}]/) emit(path, "")
    else emit(path, flow_scalar(0))
}
function flow_scalar(is_key,    quote, i, c, text) {
    quote = substr(rest, 1, 1)
    if (quote == "\"" || quote == "'") {
        for (i = 2; ; i++) {
            if (i > length(rest)) {
                if (at > count) break
                rest = rest " " trim(line[at++])
            }
            c = substr(rest, i, 1)
            if (c == "\\" && quote == "\"") i++
            else if (c == quote && quote == "'" && substr(rest, i + 1, 1) == "'") i++
            else if (c == quote) break
        }
        text = unquote(substr(rest, 1, i))
        rest = substr(rest, i + 1)
        return text
    }
    for (i = 1; i <= length(rest); i++) {
        c = substr(rest, i, 1)
        if (c == "," || c == "]" || c == "}") break
        if (c == ":" && is_key) break
        if (c == ":" && substr(rest, i + 1) ~ /^([ \t,\]}]|$)/) break
    }
    text = trim(substr(rest, 1, i - 1))
    rest = substr(rest, i)
    return text ~ /^(~|null)$/ ? "" : text
}
