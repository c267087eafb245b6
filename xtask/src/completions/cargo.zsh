
# `cargo xtask ...` is what people type. What is not xtask goes to the completion that cargo had.
if [[ ${_comps[cargo]:-} != _drydock_cargo ]]; then
    _drydock_cargo_before=${_comps[cargo]:-}
fi
_drydock_cargo() {
    if (( CURRENT > 2 )) && [[ $words[2] == xtask ]]; then
        shift words
        (( CURRENT-- ))
        _xtask "$@"
    elif [[ -n $_drydock_cargo_before ]]; then
        $_drydock_cargo_before "$@"
    elif (( CURRENT == 2 )); then
        compadd xtask
    fi
}
compdef _drydock_cargo cargo
