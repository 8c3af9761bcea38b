// A page that asks a chat, and says what its user thinks of the answer.

export async function ask(chatId, messages) {
  const answer = await fetch(`/chats/${chatId}/messages`, {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({messages}),
  });
  const {choices} = await answer.json();
  return {text: choices[0].message.content, traceId: answer.headers.get("X-MLflow-Trace-ID")};
}

export async function rate(traceId, value, comment) {
  const answer = await fetch("/feedback", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({trace_id: traceId, value, comment}),
  });
  if (!answer.ok) throw new Error((await answer.json()).detail);
}
