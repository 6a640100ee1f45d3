"""Ask a served policy for set-points: GRIDRAY_API_KEY=... python examples/query_policy.py [HOST:PORT]."""

import json
import os
import sys
from http.client import HTTPConnection

server = HTTPConnection(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000", timeout=10)
headers = {"X-API-Key": os.environ.get("GRIDRAY_API_KEY", ""), "Content-Type": "application/json"}

server.request("GET", "/v1/policy", headers=headers)
response = server.getresponse()
if response.status != 200:
    sys.exit(f"{response.status}: {response.read().decode()}")
policy = json.load(response)

# Every quantity at its nominal value, except that the voltages sag by six percent.
measured = {channel["name"]: channel["nominal"] for channel in policy["observations"]}
measured |= {name: 0.94 for name in measured if name.startswith("vmag_pu.")}

question = {"feeder": policy["feeder"]["name"], "observations": [measured]}
server.request("POST", "/v1/setpoints", json.dumps(question), headers)
answer = json.load(server.getresponse())

for point in answer["decisions"][0]["set_points"]:
    value = "keep" if point["value"] is None else f"{point['value']:.2f}"
    sys.stdout.write(f"{point['device']:24} {point['quantity']:12} {value:>10} {point['unit']}\n")
