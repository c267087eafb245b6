
# `cargo xtask ...` is what people type. What is not xtask goes to the completion that cargo had.
complete -p cargo >/dev/null 2>&1 || _comp_load cargo 2>/dev/null || _completion_loader cargo 2>/dev/null || true
_drydock_before=$(complete -p cargo 2>/dev/null | sed -n 's/.* -F \([^ ]*\) .*/\1/p')
[ "$_drydock_before" = _drydock_cargo ] || _drydock_cargo_before=$_drydock_before
unset _drydock_before

_drydock_cargo() {
    if [ "$COMP_CWORD" -ge 2 ] && [ "${COMP_WORDS[1]}" = xtask ]; then
        COMP_WORDS=("${COMP_WORDS[@]:1}")
        COMP_CWORD=$((COMP_CWORD - 1))
        _xtask xtask "$2" "$3"
    elif [ -n "$_drydock_cargo_before" ]; then
        "$_drydock_cargo_before" "$@"
    elif [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W xtask -- "$2"))
    fi
}
complete -F _drydock_cargo -o bashdefault -o default cargo
