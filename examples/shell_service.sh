#!/bin/sh
# A service in shell: each configuration is a line of JSON.
#
# STATE=./state examples/shell_service.sh        (once: config-manager client trust init --state ./state --root …)
config-manager client run --state "$STATE" --service voice \
  --mqtt-url "${CONFIG_MANAGER_MQTT_URL:-mqtt://localhost}" |
  while read -r line; do
    case $line in
      *'"event":"applied"'*) printf '%s\n' "$line" | jq -r '"speaking as \(.config.voice)"' ;;
    esac
  done
