#!/bin/bash
# A private copy-on-write root with SLURM in it, for tests/hosts/slurm.py; the machine itself stays untouched.
# Runs as the first process of its own mount and process namespaces: what it mounts and starts ends with it.
#   slurm_root.sh ROOT SHARED    ROOT: an empty folder; SHARED: a folder that both sides write to
set -euo pipefail
root=$1
shared=$2
mount -t tmpfs -o size=3g tmpfs "$root"
mkdir "$root"/{upper,work,mnt}
mount -t overlay overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" "$root/mnt"
mount -t proc proc "$root/mnt/proc"
mount --rbind /dev "$root/mnt/dev"
mount --rbind /sys "$root/mnt/sys"
mkdir -p "$root/mnt$shared"
mount --bind "$shared" "$root/mnt$shared"

# Packages are not to start services
printf '#!/bin/sh\nexit 101\n' >"$root/mnt/usr/sbin/policy-rc.d"
chmod +x "$root/mnt/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive
install() { chroot "$root/mnt" apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge; }
if ! { install || { chroot "$root/mnt" apt-get update -qq && install; }; } >"$shared/apt.log" 2>&1; then
    echo "missing: $(tail -n 1 "$shared/apt.log")"
    exit 1
fi

mkdir -p "$root/mnt"/{etc/slurm,var/spool/slurmctld,var/spool/slurmd-n1,var/spool/slurmd-n2,run/munge}
cp "$shared/slurm.conf" "$root/mnt/etc/slurm/slurm.conf"
cp "$shared/hosts" "$root/mnt/etc/hosts"
head -c 1024 /dev/urandom >"$root/mnt/etc/munge/munge.key"
chroot "$root/mnt" chown munge /etc/munge/munge.key /run/munge
chmod 400 "$root/mnt/etc/munge/munge.key"
chroot "$root/mnt" setpriv --reuid=munge --regid=munge --clear-groups munged --force 2>>"$shared/munged.log"
echo ready
while true; do sleep 1000 & wait; done # the first process buries orphans
