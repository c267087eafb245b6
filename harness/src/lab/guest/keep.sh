# Saves, on a node, what a lab changes there, and leaves a script beside it that puts it back. `$dir` is the folder for it,
# `$folders` are those in which volumes are made.
umask 077
[ ! -e "$dir/saved" ] || exit 0
for program in awk cmp comm ctr cut find grep sed sha256sum sort systemctl systemd-run tar timeout xargs update-ca-certificates; do
  command -v "$program" >/dev/null || { echo "there is no program $program" >&2; exit 1; }
done
command -v crictl >/dev/null || command -v cri-pull >/dev/null || { echo "there is no program crictl" >&2; exit 1; }
for unit in containerd kubelet; do
  systemctl is-active --quiet "$unit" || { echo "systemd runs no unit $unit" >&2; exit 1; }
done
[ -f /etc/containerd/config.toml ] || { echo "there is no /etc/containerd/config.toml" >&2; exit 1; }

rm -rf "$dir"
mkdir -p "$dir"
cat > "$dir/put-back" <<'DRYDOCK'
@PUT_BACK@
DRYDOCK
cat > "$dir/watch" <<'DRYDOCK'
@WATCH@
DRYDOCK
cd /
printf '%s\n' $folders > "$dir/volume-folders"
. "$dir/put-back" functions
tar -cpf "$dir/files.tar" --numeric-owner $(ls -d $paths 2>/dev/null || true)
list $paths > "$dir/files"
list etc > "$dir/etc"
containerd_began > "$dir/containerd"
images > "$dir/images"
volumes > "$dir/volumes"
ls -d $folders > "$dir/volume-folders-there" 2>/dev/null || true
sync
touch "$dir/saved"
systemd-run --quiet --collect --unit=drydock-watch bash "$dir/watch"
