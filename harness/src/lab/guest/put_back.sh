#!/bin/bash
# Puts back what Drydock changed on this node, and removes this folder when all is as it was. Run it as root. It may be run again.
set -uo pipefail
export LC_ALL=C
ours='@IMAGES@'
export ours
paths="etc/containerd etc/ssl/certs etc/ca-certificates.conf usr/local/share/ca-certificates"

# Kind, mode, owner and content of everything in these places: a line each for what it is and what is in it.
list() {
  {
    find "$@" -printf '%p\t%y %m %U:%G %l\n'
    find "$@" -type f -print0 | xargs -0r sha256sum | sed -E 's/^\\?([0-9a-f]+)  (.*)$/\2\t\1/'
  } 2>/dev/null | sort || true
}
names() { cut -f1 "$@" | sort -u; }
# The names of what is otherwise in one list than in the other.
differ() { comm -3 "$@" | sed 's/^\t//' | names | head -20 | xargs; }
containerd_began() { systemctl show -P ActiveEnterTimestampMonotonic containerd; }
# Names and digests.
images() { ctr -n k8s.io images ls | awk 'NR > 1 { print $1, $3 }' | sort; }
# What lies in the folders in which volumes are made.
volumes() {
  while IFS= read -r folder; do
    find "$folder" -mindepth 1 -maxdepth 1 2>/dev/null || true
  done < "$dir/volume-folders" | sort
}
[ "${1-}" != functions ] || return 0

dir=$(cd "$(dirname "$0")" && pwd)
cd /
amiss=0
say() { echo "$*"; amiss=1; }

if ! list $paths | cmp -s - "$dir/files" || [ "$(containerd_began)" != "$(cat "$dir/containerd")" ]; then
  # What was not there before goes, deepest first; then everything that was is laid again.
  comm -13 <(names "$dir/files") <(list $paths | names) | sort -r | while IFS= read -r path; do
    if [ -d "$path" ] && [ ! -L "$path" ]; then rmdir "$path"; else rm -f "$path"; fi
  done
  tar -xpf "$dir/files.tar" --numeric-owner --same-owner || say "$dir/files.tar cannot be laid over /"
  systemctl daemon-reload
  systemctl restart containerd || say "containerd does not start: journalctl -u containerd"
fi
systemctl is-active --quiet kubelet || systemctl restart kubelet || say "the kubelet does not start: journalctl -u kubelet"
list $paths > "$dir/files-now"
if ! cmp -s "$dir/files-now" "$dir/files"; then
  say "otherwise than before, as $dir/files.tar has them: $(differ "$dir/files" "$dir/files-now")"
fi

# A containerd that has just started needs a moment.
for _ in 1 2 3 4 5 6 7 8 9 10; do
  if images > "$dir/images-now" 2>/dev/null; then break; fi
  sleep 1
done
if [ -s "$dir/images-now" ]; then
  awk 'FNR == NR { before[$1]; next }
    $1 in before { next }
    { digest[$1] = $2 }
    $1 ~ ENVIRON["ours"] { own[$2] }
    END { for (name in digest) if (digest[name] in own) print name }' "$dir/images" "$dir/images-now" |
    while IFS= read -r image; do ctr -n k8s.io images rm --sync "$image" >/dev/null; done
else
  say "containerd does not answer; which images are left is not known"
fi

comm -13 "$dir/volumes" <(volumes) | grep -E '/(pvc-[^/]*_@NAMESPACE@_[^/]*|registry-rebound)$' |
  while IFS= read -r folder; do rm -rf "$folder"; done
while IFS= read -r folder; do
  if [ -d "$folder" ] && ! grep -qxF "$folder" "$dir/volume-folders-there"; then
    rmdir "$folder" || say "$folder was not there before, and is not empty"
  fi
done < "$dir/volume-folders"

# Others may have changed these meanwhile: they are told, not touched.
others=$(differ "$dir/etc" <(list etc))
[ -z "$others" ] || echo "others: $others"

[ "$amiss" = 0 ] || exit 1
systemctl stop drydock-watch 2>/dev/null
cd / && rm -rf "$dir"
rmdir /var/lib/drydock 2>/dev/null || true
