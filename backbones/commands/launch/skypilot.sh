run={{run}}
before=$(cat "$run/status.json" 2>/dev/null) || true

code=0
{{python}} -m torch.distributed.run --nnodes "$SKYPILOT_NUM_NODES" --node-rank "$SKYPILOT_NODE_RANK" \
    --master-addr "$(head -n 1 <<<"$SKYPILOT_NODE_IPS")" --master-port 29500 \
    {{torchrun}} \
    {{training}} || code=$?

# The exit status of the training does not survive torchrun: status.json says how the run ended.
after=$(cat "$run/status.json" 2>/dev/null) || true
if [ "$after" != "$before" ] && grep -q '"state": *"preempted"' <<<"$after"; then
    exit {{preempted}}
fi
exit "$code"
