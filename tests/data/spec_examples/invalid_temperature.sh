# Invalid temperature (must be 0.0-2.0)
curl -X POST http://localhost:3000/v1/chat/completions \
  -H "Content-Type: application/json" \
  -d '{
    "model": "gpt-4",
    "messages": [{"role": "user", "content": "Hello"}],
    "temperature": 3.0
  }'
# Returns: 400 Bad Request with validation error
