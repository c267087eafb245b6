#!/bin/sh
# There is nobody else to become here, and what sudo does to the environment would lead kubectl to another cluster.
while [ $# -gt 0 ]; do
  case $1 in
    --) shift; break ;;
    --user | --group | --host | --prompt | --chdir | --chroot | --close-from | --other-user) shift 2 ;;
    --*) shift ;;
    -*[ugphCUrtTDR]) shift 2 ;;
    -*) shift ;;
    *) break ;;
  esac
done
# As `sudo -i` and `sudo -s` do, with what they are given to read.
[ $# -gt 0 ] || exec bash -s
exec env -- "$@"
