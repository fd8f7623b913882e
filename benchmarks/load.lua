-- Sends the requests of a file in order, repeatedly.
-- Arguments: the file and, optionally, a file to which created tasks are appended.

function setup(thread)
  the_thread = thread -- there is only one: wrk runs with -t1
end

function init(arguments)
  sent, requests = 0, {}
  local file = io.open(arguments[1], "rb")
  for request in file:read("*a"):gmatch("[^\1]+") do
    requests[#requests + 1] = request
  end
  file:close()
  if arguments[2] then
    local created = io.open(arguments[2], "a")
    -- The title contains the owner's number, because the responses of some servers have no owner.
    function response(status, headers, body)
      local id = body:match('"id":%s*"?([%w-]+)')
      local owner = body:match('"title":%s*"[^"]-(%d+)"')
      if id and owner then
        created:write(id, " ", owner, "\n")
      end
    end
  end
end

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"sent": %d, "completed": %d, "seconds": %f, "p50_ms": %f, "p95_ms": %f, "p99_ms": %f, "errors": %d}\n',
    the_thread:get("sent") - 1, -- wrk calls request() once without sending
    summary.requests,
    summary.duration / 1e6,
    latency:percentile(50) / 1e3,
    latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
