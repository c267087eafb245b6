#!/bin/sh
# There is nobody else to become here, and what sudo does to the environment would lead kubectl to another cluster.
while [ $# -gt 0 ]; do
  case $1 in
    -u | -g | -h | -p | -C | -U) shift 2 ;;
    --) shift; break ;;
    -*) shift ;;
    *) break ;;
  esac
done
[ $# -eq 0 ] || exec env -- "$@"
