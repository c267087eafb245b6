# Read once, by the shell that a person sits at.
unset BASH_ENV
PS1='practice:\W\$ '
HISTFILE=$HOME/.bash_history
leave() { exit 0; }
pause() { practice pause && exit 0; }
vars() { eval "$(practice vars)"; }
