#!/bin/sh
# To a node of the lab, as root, by the node's name: `ssh NODE [COMMAND...]`. It leads nowhere else.
while [ $# -gt 0 ]; do
  case $1 in
    -[bcDEeFIiJLlmOopQRSWw]) shift 2 ;;
    -*) shift ;;
    *) break ;;
  esac
done
nodes='{nodes}'
if [ $# -eq 0 ]; then
  echo "ssh NODE [COMMAND...]; the nodes: $nodes" >&2
  exit 255
fi
node=${1#*@}
shift
case $node in
{cases}
  *)
    echo "ssh: there is no node $node in this lab (there are: $nodes)" >&2
    exit 255
    ;;
esac
terminal=
if [ -t 0 ] && [ -t 1 ]; then terminal=-t; fi
if [ $# -eq 0 ]; then set -- bash -l; else set -- bash -c "$*"; fi
exec env DOCKER_HOST='{host}' '{docker}' exec -i $terminal "$container" "$@"
