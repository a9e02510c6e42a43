#!/bin/sh
# First process of the emulated machine: runs the jobs that the host puts on its disk, until the host ends the machine.
# Sector 0 says "NUMBER BYTES" of the newest job, a tar archive at 1 MiB with the script `run`; sector 1 says the same of
# its answer at 256 MiB: the archive of `status`, `output` and the files that `run` left in `results`.
DISK=/dev/sda
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=100% tmpfs /job
for module in scsi_common scsi_mod sd_mod libata ata_piix; do insmod /modules/$module.ko; done
export LD_LIBRARY_PATH=/lib
done=0
while true; do
  set -- $(dd if=$DISK bs=512 count=1 iflag=direct status=none | tr -d '\0')
  if [ "${1:-0}" = $done ]; then sleep 0.01; continue; fi
  done=$1
  rm -rf /job/*
  blockdev --flushbufs $DISK
  dd if=$DISK bs=1M skip=1 iflag=fullblock,count_bytes count=$2 status=none | tar -x -C /job
  mkdir /job/results
  (cd /job && sh ./run >output 2>&1; echo $? >status)
  (cd /job && tar -c -f answer.tar status output results)
  dd if=/job/answer.tar of=$DISK bs=1M seek=256 conv=fsync status=none
  printf '%-512s' "$done $(stat -c %s /job/answer.tar)" | dd of=$DISK bs=512 seek=1 conv=fsync status=none
done
