#!/bin/sh
# Leads out of the lab: to this machine itself, to other machines, or to engines and clusters that are not the lab's.
echo "${0##*/}: not on the lab's workstation: a block that says on=each-node, on=workers or on=gpu-node runs on nodes;" \
  "crane copies, pushes and pulls images" >&2
exit 127
