
# `cargo xtask ...` is what people type.
function __drydock_is_xtask
    set -l words (commandline -opc)
    test (count $words) -ge 2; and test $words[2] = xtask
end
function __drydock_complete
    set -l words (commandline -opc)
    set -e words[1..2]
    complete -C "xtask "(string join -- ' ' (string escape -- $words) (commandline -ct))
end
complete -c cargo -n __drydock_is_xtask -f -a '(__drydock_complete)'
